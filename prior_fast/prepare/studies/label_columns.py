"""Labels in a table of studies: one column with the names of the classes, or one column for each class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prior_fast.errors import UsageError
from prior_fast.prepare.any_table import Table, cell_text
from prior_fast.prepare.label_words import is_label, label_value, split_names
from prior_fast.radiology.labels import CHEXPERT_LABELS


@dataclass(frozen=True)
class LabelColumns:
    """The columns of labels.

    Attributes:
        classes: the names of the labels, in their order.
        names: the texts of one column that lists names, one for each row; None if each class has a column.
        values: the cells of each class's column.
    """

    table: Table
    classes: tuple[str, ...]
    names: Sequence[Any] | None
    values: Mapping[str, Sequence[Any]]

    @classmethod
    def of(cls, table: Table, given: str | None) -> "LabelColumns":
        """Find the columns.

        Args:
            given: the columns' names, separated by commas; None for those of CheXpert's 14 labels that the table has.

        Raises:
            UsageError: a column is absent, or one column alone has neither names nor values of labels.
        """
        if given is None:
            found = {name: table.find("--labels", None, (name,), required=False) for name in CHEXPERT_LABELS}
            columns = {name: column for name, column in found.items() if column}
        else:
            wanted = [name.strip() for name in given.split(",") if name.strip()]
            if not wanted:
                raise UsageError("--labels names no column")
            columns = {column: column for name in wanted if (column := table.find("--labels", name, ()))}
        values = {name: table.columns[column] for name, column in columns.items()}
        if len(values) == 1:
            (cells,) = values.values()
            if any(_is_name(cell) for cell in cells):
                classes = dict.fromkeys(name for cell in cells for name in split_names(cell))
                return cls(table, tuple(sorted(classes)), cells, {})
        return cls(table, tuple(values), None, values)

    def row(self, place: int, line: int) -> dict[str, float]:
        """The labels of a row: 1, 0 or -1 by class; blank ones are absent.

        Where one column lists names, the classes that it does not name are 0; a blank cell says nothing.

        Raises:
            UsageError: a cell is no label.
        """
        if self.names is not None:
            cell = self.names[place]
            if cell_text(cell) is None and not isinstance(cell, list):
                return {}
            named = split_names(cell)
            return {name: float(name in named) for name in self.classes}
        labels = {}
        for name, column in self.values.items():
            value = label_value(column[place], f"{self.table.path}, line {line}", name)
            if value is not None:
                labels[name] = value
        return labels


def _is_name(cell: Any) -> bool:
    """Whether a cell lists names instead of having a value of a label."""
    return isinstance(cell, list) or not is_label(cell)
