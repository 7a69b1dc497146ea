"""The pictures that are drawn from CSV files."""

import statistics

HATCHES = {'scn': '', 'ssl': '///', 'gss': 'xxx'}  # so that black and white will do
GREYS = {'scn': '0.85', 'ssl': '0.65', 'gss': '0.4'}
TITLES = {'scn': 'Sparsely Connected Nets', 'ssl': 'SSL', 'gss': 'GSS'}


def pyplot():
    """matplotlib.pyplot, drawing into files alone; slow to import, and a run needs none of it."""
    import matplotlib
    matplotlib.use('agg')
    from matplotlib import pyplot
    return pyplot


def draw_comparison(panels, paper, path):
    """Grouped bars of the accuracy drop by level, the paper's own values as outlined markers on them.

    Args:
      panels: dict from a panel's title to a dict from method to a dict from level, per cent, to the drops in points, one a
        seed; a level without drops gets no bar.
      paper: dict from method to a dict from level to its drop.
      path: of the PNG file to write.
    """
    plt = pyplot()
    figure, axes = plt.subplots(len(panels), figsize=(8, 3.4 * len(panels)), layout='constrained', squeeze=False)
    for panel, (title, methods) in zip(axes[:, 0], panels.items(), strict=True):
        levels = sorted({level for drops in methods.values() for level in drops})
        for i, (method, drops) in enumerate(methods.items()):
            places = [j + 0.27 * (i - 1) for j in range(len(levels))]
            known = [(place, drops[level]) for place, level in zip(places, levels, strict=True) if drops.get(level)]
            panel.bar([place for place, _ in known], [statistics.mean(values) for _, values in known], 0.25,
                      yerr=[statistics.stdev(values) if len(values) > 1 else 0 for _, values in known], capsize=3,
                      color=GREYS[method], hatch=HATCHES[method], edgecolor='black', linewidth=0.7, label=TITLES[method])
            marks = [(place, paper[method][level]) for place, level in zip(places, levels, strict=True) if level in paper[method]]
            panel.plot(*zip(*marks, strict=True), 'D', markersize=6, markerfacecolor='white', markeredgecolor='black',
                       label="the paper's figure" if i == 0 else None)
            for place, level in zip(places, levels, strict=True):
                if not drops.get(level):
                    panel.annotate('not\nreached', (place, 0), (0, 3), textcoords='offset points', ha='center', fontsize=6)
        panel.axhline(0, color='black', linewidth=0.7)
        panel.set(title=f'level: {title}', ylabel='Accuracy drop (%)', xticks=range(len(levels)),
                  xticklabels=[f'{level:g}' for level in levels])
        panel.grid(axis='y', alpha=0.3)
    axes[-1, 0].set_xlabel('Sparsity level (%)')
    axes[0, 0].legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_alive(layers, path):
    """Groups alive against the strength of the group lasso, a panel a layer.

    Args:
      layers: dict from a layer's name to a dict from method to a dict from lambda_g to the groups alive, one number a seed.
      path: of the PNG file to write.
    """
    plt = pyplot()
    figure, axes = plt.subplots(1, len(layers), figsize=(2.5 * len(layers), 2.9), layout='constrained', sharex=True)
    for panel, (layer, methods) in zip(axes, layers.items(), strict=True):
        for (method, alive), style in zip(methods.items(), ('s--', 'o-'), strict=True):
            strengths = sorted(alive)
            means = [statistics.mean(alive[strength]) for strength in strengths]
            spread = [[mean - min(alive[strength]) for mean, strength in zip(means, strengths, strict=True)],
                      [max(alive[strength]) - mean for mean, strength in zip(means, strengths, strict=True)]]
            panel.errorbar(strengths, means, spread, fmt=style, color=GREYS[method] if method == 'ssl' else 'black',
                           markersize=4, capsize=2, linewidth=1, label=TITLES[method])
        panel.set(title=layer, xscale='log', xlabel='lambda_g', ylim=(0, None))
        panel.grid(alpha=0.3)
    axes[0].set_ylabel('groups alive')
    axes[0].legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
