"""The methods that the MultiFair experiment compares, each for as many steps.

Methods that differ in numbers only are variants of one program, which is compiled
once and trains all of them side by side. All clip the update's norm where MultiFair
does, and train the auxiliary heads beside their own loss, so that every method's
modalities can be watched.
"""

from collections.abc import Sequence

from experiments.core.programs import Program
from experiments.core.protocol import CrossValidation
from experiments.multifair import (
    modulated as multifair_modulated,
)
from experiments.multifair import (
    reconciled as multifair_reconciled,
)
from experiments.multifair.names import titles, unimodal
from experiments.multifair.task import MultimodalTask


def build(
    names: Sequence[str], task: MultimodalTask, splits: CrossValidation
) -> list[Program]:
    """The programs that train the methods of the given names, and no others.

    Raises:
      ValueError: An unknown name; the error lists the known ones.
    """
    known = titles(task.names)
    unknown = [n for n in names if n not in known]
    if unknown:
        raise ValueError(
            f"--methods has no {', '.join(unknown)}; it knows: {', '.join(known)}."
        )
    # Late fusion is made of the single modalities' predictions.
    wanted = set(names)
    if "late_fusion" in wanted:
        wanted |= {unimodal(name) for name in task.names}
    makers = (
        multifair_modulated.modulated,
        multifair_modulated.released,
        multifair_modulated.after_adam,
        multifair_modulated.ogm_ge,
        multifair_modulated.cggm,
        multifair_reconciled.group_dro,
        multifair_reconciled.penalty,
        multifair_reconciled.fairgrad,
        multifair_reconciled.dual_level,
    )
    programs = []
    for make in makers:
        program = make(task, splits)
        keep = [i for i, v in enumerate(program.variants) if v.name in wanted]
        if keep:
            programs.append(program.take(keep))
    return programs
