"""Every misuse that dropkit knows, one file each. A new rule is its file and a line here.

Families: 1xx active when it must not be, 2xx does nothing, 3xx wrong number, 4xx wrong place or kind.
"""

from dropkit.rules import (
    alpha_dropout_mismatch,
    attention_dropout_not_gated,
    channel_dropout_on_matrix,
    checkpoint_without_rng,
    custom_dropout_unguarded,
    double_dropout,
    dropout_after_softmax,
    dropout_argument_ignored,
    dropout_before_activation,
    dropout_before_batchnorm,
    dropout_built_per_call,
    dropout_in_plain_container,
    dropout_never_applied,
    dropout_on_output,
    dropout_result_discarded,
    elementwise_dropout_on_feature_map,
    eval_without_eval_mode,
    functional_dropout_ignores_mode,
    inplace_dropout_breaks_backward,
    keep_prob_as_p,
    loop_compounded_dropout,
    missing_super_init,
    mode_assigned_directly,
    rnn_dropout_single_layer,
    train_override_breaks_contract,
    training_flag_as_rate,
)
from dropkit.rules.rule import Default, Example, Hit, Rule

RULES: tuple[Rule, ...] = (
    functional_dropout_ignores_mode.RULE,
    attention_dropout_not_gated.RULE,
    dropout_built_per_call.RULE,
    train_override_breaks_contract.RULE,
    dropout_in_plain_container.RULE,
    mode_assigned_directly.RULE,
    eval_without_eval_mode.RULE,
    custom_dropout_unguarded.RULE,
    dropout_result_discarded.RULE,
    dropout_never_applied.RULE,
    dropout_argument_ignored.RULE,
    rnn_dropout_single_layer.RULE,
    training_flag_as_rate.RULE,
    keep_prob_as_p.RULE,
    loop_compounded_dropout.RULE,
    double_dropout.RULE,
    checkpoint_without_rng.RULE,
    inplace_dropout_breaks_backward.RULE,
    channel_dropout_on_matrix.RULE,
    dropout_after_softmax.RULE,
    alpha_dropout_mismatch.RULE,
    missing_super_init.RULE,
    dropout_on_output.RULE,
    dropout_before_batchnorm.RULE,
    dropout_before_activation.RULE,
    elementwise_dropout_on_feature_map.RULE,
)

__all__ = ["RULES", "Default", "Example", "Hit", "Rule"]
