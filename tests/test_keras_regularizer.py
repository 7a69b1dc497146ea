"""GuidedSparsity against main's losses, inside a Keras model, and on Keras's other backends."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_regularizer
import main
from keras_regularizer import GuidedSparsity

SHAPES = {'vector': (5,), 'dense': (7, 5), 'conv1d': (3, 4, 6), 'conv2d': (3, 2, 4, 5), 'conv3d': (2, 3, 2, 4, 3)}

# The penalty and its gradient of the weights in a file, on whatever backend the environment names.
OTHER_BACKEND = """
import sys, keras, numpy as np
from keras_regularizer import GuidedSparsity
weights, regularizer = np.load(sys.argv[1]), GuidedSparsity(0.3, 0.7)
assert 'tensorflow' not in sys.modules and 'main' not in sys.modules
if keras.backend.backend() == 'torch':
    x = keras.Variable(weights)
    value = regularizer(x)
    value.backward()
    value, gradient = value.detach(), x.value.grad
else:
    import jax
    value, gradient = jax.value_and_grad(regularizer)(keras.ops.convert_to_tensor(weights))
np.savez(sys.argv[2], value=value, gradient=gradient)
"""


def weights(shape):
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    array[..., 1] = 0  # a group that is gone
    return array


def value_and_gradient(penalty, array):
    variable = tf.Variable(array)
    with tf.GradientTape() as tape:
        value = penalty(variable)
    return value, tape.gradient(value, variable).numpy()


def mains(lambda_g, lambda_v):
    return lambda x: tf.add_n([tf.zeros([]), *main.penalties([x], lambda_g, lambda_v).values()])


@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize('coefficients', [(0.3, 0.7), (0.3, 0), (0, 0.7)], ids=['both', 'lasso', 'variance'])
def test_it_equals_the_losses_of_main(shape, coefficients):
    value, gradient = value_and_gradient(GuidedSparsity(*coefficients), weights(shape))
    expected_value, expected_gradient = value_and_gradient(mains(*coefficients), weights(shape))
    assert value.dtype == tf.float32 and value.shape == ()
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-6)
    assert (gradient[..., 1] == 0).all() and (gradient[..., 0] != 0).all()


@pytest.mark.parametrize('backend', ['torch', 'jax'])
def test_it_is_the_same_on_other_backends(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f'{backend} is not installed')
    np.save(tmp_path / 'weights.npy', weights((3, 2, 4, 5)))
    environment = {**os.environ, 'KERAS_BACKEND': backend,
                   'PYTHONPATH': str(pathlib.Path(keras_regularizer.__file__).parent)}
    subprocess.run([sys.executable, '-c', OTHER_BACKEND, tmp_path / 'weights.npy', tmp_path / 'out.npz'], check=True,
                   env=environment)
    found = np.load(tmp_path / 'out.npz')
    value, gradient = value_and_gradient(mains(0.3, 0.7), weights((3, 2, 4, 5)))
    np.testing.assert_allclose(found['value'], value, rtol=1e-5)
    np.testing.assert_allclose(found['gradient'], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')  # Keras's own, in saving
@pytest.mark.parametrize('number', [float, np.float32, tf.constant], ids=['float', 'NumPy', 'tensor'])
def test_inside_a_keras_model_that_is_saved_and_loaded(tmp_path, number):
    def regularizer():
        return GuidedSparsity(group_lasso=number(0.25), group_variance=number(0.75))

    layers = keras.layers
    model = keras.Sequential([
        keras.Input((4, 4, 4, 1)),
        layers.Conv3D(3, 2, kernel_regularizer=regularizer()), layers.Reshape((9, 9)),
        layers.Conv1D(4, 3, kernel_regularizer=regularizer()), layers.Flatten(),
        layers.Dense(5, kernel_regularizer=regularizer())])
    kernels = [layer.kernel.numpy() for layer in model.layers if hasattr(layer, 'kernel')]
    np.testing.assert_allclose(sum(model.losses), sum(main.penalties(kernels, 0.25, 0.75).values()), rtol=1e-5)

    model.compile('sgd', 'mse')
    model.fit(np.ones((8, 4, 4, 4, 1)), np.ones((8, 5)), epochs=1, verbose=0)
    trained = [layer.kernel.numpy() for layer in model.layers if hasattr(layer, 'kernel')]
    assert all((old != new).any() for old, new in zip(kernels, trained, strict=True))

    model.save(tmp_path / 'model.keras')
    again = keras.models.load_model(tmp_path / 'model.keras')
    assert again.layers[-1].kernel_regularizer.get_config() == {'group_lasso': 0.25, 'group_variance': 0.75}
    np.testing.assert_allclose(sum(again.losses), sum(model.losses))


def test_the_name_in_saved_models():
    assert keras.saving.get_registered_name(GuidedSparsity) == 'attention_guided_sparsity>GuidedSparsity'


def test_terms_with_zero_coefficients_are_dropped():
    kernel = tf.ones((4, 3))  # equal groups: the inverse variance is infinite
    assert GuidedSparsity(0.0, 0.0)(kernel) == 0
    np.testing.assert_allclose(GuidedSparsity(1.0, 0.0)(kernel), 6)
    assert GuidedSparsity().get_config() == {'group_lasso': 0.001, 'group_variance': 0.01}


@pytest.mark.parametrize('coefficients', [(-1, 0), (0, -1), (float('nan'), 0), (0, float('inf'))])
def test_bad_coefficients_are_refused(coefficients):
    with pytest.raises(ValueError, match='finite and at least 0'):
        GuidedSparsity(*coefficients)
