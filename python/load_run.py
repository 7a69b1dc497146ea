"""A run out of its folder, for the tools that go on from its net: its settings, its data, the net itself."""

import json
import os

import tensorflow as tf

import checkpoints
import input_data
import main
import program


def told(facts, **kinds):
    """Raises KeyError or TypeError if facts do not have these names, of these types."""
    for name, kind in kinds.items():
        if not isinstance(facts[name], kind):
            raise TypeError(f'{name}: {facts[name]!r}')


def load_facts(folder, flag='log_dir'):
    """The content of a run's settings.json, and the Settings of its net; program.RunError if there is no run.

    The data are always said: where they came from under `data`, also for runs of earlier versions, which do not say so.
    """
    path = folder / 'settings.json'
    try:
        facts = json.loads(path.read_text())
        used = {name: facts['settings'][name] for name in (
            'widths', 'sparsity_threshold', 'random_sparsity', 'seed', 'max_steps')}
        settings = main.Settings(**used, group_variance=0)  # the bounds of the loss's coefficients do not count here
        dataset = facts['identity']['dataset']
        facts['data'] = facts.get('data') or {'dataset': dataset, 'fake_data': dataset == 'fake'}
        os.fspath(facts['data'].get('data_dir') or '')  # TypeError if it is no path
        main.Settings(seed=facts['data'].get('seed', 0))  # RunError if it is none
        if not facts['data']['fake_data'] and facts['data']['dataset'] not in input_data.DATASETS:
            raise ValueError(f'the data set {facts["data"]["dataset"]}')
        told(facts['identity'], train_sha256=str)
        if 'start' in facts:  # of a retraining
            told(facts['start'], folder=str, hash=str, groups=str, identity=dict, step=int, settings=dict)
            told(facts['start']['settings'], widths=list, sparsity_threshold=(int, float), max_steps=int)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise program.RunError(f'--{flag}={folder} holds no run of main.py, for it has no settings.json.') from error
    except OSError as error:
        raise program.RunError(f'--{flag}={folder} holds no run that can be read ({error}).') from error
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, program.RunError) as error:
        raise program.RunError(f'{path} does not hold the settings and the data of a run of main.py ({error!r}). '
                               f'Give another --{flag}.') from error
    return facts, settings


def load_data(folder, facts, data_dir):
    """The input_data.DataSets of a run, and the arguments of read_data_sets that gave them.

    Raises:
      program.RunError: they cannot be had, or those to train with have changed; the others are not compared.
    """
    source = {'dataset': facts['data']['dataset'], 'data_dir': data_dir or facts['data'].get('data_dir'),
              'fake_data': facts['data']['fake_data'], 'seed': facts['data'].get('seed', facts['settings']['seed'])}
    try:
        data = input_data.read_data_sets(**source)
    except input_data.DataError as error:
        reason = program.first_line(error).rstrip('.:')
        raise program.RunError(f"{reason}. Give the folder of the run's data as --data_dir.") from error
    if checkpoints.content(data) != facts['identity']['train_sha256']:
        raise program.RunError(f'{data.name}: not the images that the run in {folder} has learned. Give the folder '
                               'of those as --data_dir.')
    return data, source


def load_net(folder, settings, image_shape, flag='log_dir'):
    """The main.LeNet of a run at its newest checkpoint, whose step it has; program.RunError if none can be read."""
    lenet = main.LeNet(image_shape, settings)
    if checkpoints.read_newest(folder, tf.train.Checkpoint(net=lenet)) is None:
        raise program.RunError(f'--{flag}={folder} holds no checkpoint that can be read.')
    return lenet
