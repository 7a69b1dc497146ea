"""Both penalties of the paper as a Keras regularizer, on any of Keras's backends.

    Dense(64, activation='relu', kernel_regularizer=GuidedSparsity(group_lasso=0.001, group_variance=0.01))
"""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable(package='attention_guided_sparsity')
class GuidedSparsity(keras.regularizers.Regularizer):
    """lambda_g * sum_g ||W_g||_2 + lambda_v / Var_g(||W_g||_2^2) of one layer: main.group_lasso and group_variance.

    It is for layers whose kernel has the outputs on the last axis: Dense and Conv1D to Conv3D. It is not for transposed
    convolutions (outputs on the last axis but one), depthwise and separable ones (the last two axes together),
    EinsumDense and attention (heads and features), or the recurrent layers (the gates of a unit lie apart).

    Args:
      group_lasso, group_variance: the coefficients lambda_g and lambda_v. The defaults are the paper's; 0 drops a term.
        A layer with one output, or with equal ones as after a constant initializer, needs group_variance=0.

    Raises:
      ValueError: a coefficient is negative or not finite.
    """

    def __init__(self, group_lasso=0.001, group_variance=0.01):
        # Plain floats, for a tensor or a scalar of NumPy's could be saved but not loaded.
        self.group_lasso, self.group_variance = float(group_lasso), float(group_variance)
        if not (0 <= self.group_lasso < math.inf and 0 <= self.group_variance < math.inf):
            raise ValueError(f'coefficients must be finite and at least 0: {group_lasso}, {group_variance}')

    def __call__(self, x):
        """The penalty, a scalar, of weights [..., outputs]."""
        squared = ops.sum(ops.square(ops.reshape(x, [-1, x.shape[-1]])), axis=0)  # ||W_g||_2^2, [outputs]
        penalty = ops.zeros([], squared.dtype)
        if self.group_lasso:
            alive = squared > 0
            norms = ops.where(alive, ops.sqrt(ops.where(alive, squared, 1)), 0)  # the gradient at 0 is 0, not NaN
            penalty += self.group_lasso * ops.sum(norms)
        if self.group_variance:
            penalty += self.group_variance / ops.var(squared)
        return penalty

    def get_config(self):
        return {'group_lasso': self.group_lasso, 'group_variance': self.group_variance}
