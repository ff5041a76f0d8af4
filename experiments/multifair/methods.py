"""The methods that the MultiFair experiment compares, for equal numbers of steps.

Methods that differ only in numbers are variants of one program, which is compiled
once and trains all variants side by side. All methods clip the update's norm where
MultiFair does. All methods train the auxiliary heads in addition, so that every
method's modalities can be monitored.
"""

from collections.abc import Sequence

from experiments.core.programs import Program, check_names, only
from experiments.core.protocol import CrossValidation
from experiments.multifair import modulated, reconciled
from experiments.multifair.names import titles, unimodal
from experiments.multifair.task import MultimodalTask


def build(
    names: Sequence[str], task: MultimodalTask, splits: CrossValidation
) -> list[Program]:
    """Makes the programs that train the methods of the given names.

    Raises:
      ValueError: If a name is unknown; the error lists the known names.
    """
    check_names(names, titles(task.names))
    # Late fusion averages the single modalities' predictions.
    wanted = set(names)
    if "late_fusion" in wanted:
        wanted |= {unimodal(name) for name in task.names}
    makers = (
        modulated.modulated,
        modulated.released,
        modulated.after_adam,
        modulated.ogm_ge,
        modulated.cggm,
        reconciled.group_dro,
        reconciled.penalty,
        reconciled.fairgrad,
        reconciled.dual_level,
    )
    return only((make(task, splits) for make in makers), wanted)
