"""The methods that the MultiFair experiment compares, each for as many steps.

Methods that differ in numbers only are variants of one program, which is compiled
once and trains all of them side by side. All clip the update's norm where MultiFair
does, and train the auxiliary heads beside their own loss, so that every method's
modalities can be watched.
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
    """The programs that train the methods of the given names, and no others.

    Raises:
      ValueError: An unknown name; the error lists the known ones.
    """
    check_names(names, titles(task.names))
    # Late fusion is made of the single modalities' predictions.
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
