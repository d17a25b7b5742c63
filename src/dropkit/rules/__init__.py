"""Every misuse that dropkit finds, one file each; CONTRIBUTING.md has the recipe of a new one.

Families: 0xx comments for the linter, 1xx active when it must not be, 2xx does nothing, 3xx wrong number, 4xx wrong
place or kind.
"""

from dropkit.rules.drp001_unused_noqa import RULE as DRP001
from dropkit.rules.drp101_functional_dropout_ignores_mode import RULE as DRP101
from dropkit.rules.drp102_attention_dropout_not_gated import RULE as DRP102
from dropkit.rules.drp103_dropout_built_per_call import RULE as DRP103
from dropkit.rules.drp104_train_override_breaks_contract import RULE as DRP104
from dropkit.rules.drp105_dropout_in_plain_container import RULE as DRP105
from dropkit.rules.drp106_mode_assigned_directly import RULE as DRP106
from dropkit.rules.drp107_eval_without_eval_mode import RULE as DRP107
from dropkit.rules.drp108_custom_dropout_unguarded import RULE as DRP108
from dropkit.rules.drp109_functional_dropout_always_on import RULE as DRP109
from dropkit.rules.drp110_train_override_returns_nothing import RULE as DRP110
from dropkit.rules.drp201_dropout_result_discarded import RULE as DRP201
from dropkit.rules.drp202_dropout_never_applied import RULE as DRP202
from dropkit.rules.drp203_dropout_argument_ignored import RULE as DRP203
from dropkit.rules.drp204_rnn_dropout_single_layer import RULE as DRP204
from dropkit.rules.drp205_dropout_off_in_training import RULE as DRP205
from dropkit.rules.drp206_encoder_fast_path import RULE as DRP206
from dropkit.rules.drp207_dropout_rate_unread import RULE as DRP207
from dropkit.rules.drp301_training_flag_as_rate import RULE as DRP301
from dropkit.rules.drp302_keep_prob_as_p import RULE as DRP302
from dropkit.rules.drp303_loop_compounded_dropout import RULE as DRP303
from dropkit.rules.drp304_double_dropout import RULE as DRP304
from dropkit.rules.drp305_checkpoint_without_rng import RULE as DRP305
from dropkit.rules.drp306_rate_changed_in_forward import RULE as DRP306
from dropkit.rules.drp307_mask_drawn_twice import RULE as DRP307
from dropkit.rules.drp308_rate_not_held import RULE as DRP308
from dropkit.rules.drp309_default_rate_beside_argument import RULE as DRP309
from dropkit.rules.drp310_mask_shared_by_batch import RULE as DRP310
from dropkit.rules.drp311_mask_not_rescaled import RULE as DRP311
from dropkit.rules.drp401_inplace_dropout_breaks_backward import RULE as DRP401
from dropkit.rules.drp402_channel_dropout_on_matrix import RULE as DRP402
from dropkit.rules.drp403_dropout_after_softmax import RULE as DRP403
from dropkit.rules.drp404_alpha_dropout_mismatch import RULE as DRP404
from dropkit.rules.drp405_missing_super_init import RULE as DRP405
from dropkit.rules.drp406_dropout_on_output import RULE as DRP406
from dropkit.rules.drp407_dropout_before_batchnorm import RULE as DRP407
from dropkit.rules.drp408_dropout_before_activation import RULE as DRP408
from dropkit.rules.drp409_elementwise_dropout_on_feature_map import RULE as DRP409
from dropkit.rules.drp411_elementwise_dropout_as_drop_path import RULE as DRP411
from dropkit.rules.drp412_dropout_on_mask import RULE as DRP412
from dropkit.rules.rule import Default, Example, Rule, TraceViolation, Violation

RULES: tuple[Rule, ...] = (
    DRP001,
    DRP101, DRP102, DRP103, DRP104, DRP105, DRP106, DRP107, DRP108, DRP109, DRP110,
    DRP201, DRP202, DRP203, DRP204, DRP205, DRP206, DRP207,
    DRP301, DRP302, DRP303, DRP304, DRP305, DRP306, DRP307, DRP308, DRP309, DRP310, DRP311,
    DRP401, DRP402, DRP403, DRP404, DRP405, DRP406, DRP407, DRP408, DRP409, DRP411, DRP412,
)  # fmt: skip

__all__ = ["RULES", "Default", "Example", "Rule", "TraceViolation", "Violation"]
