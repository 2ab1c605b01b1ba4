"""From a table file to tensors: rows by id, what their columns are, and numbers of them that a model takes.

    table = OrderedTable("patients.csv", "id")
    columns = recognise(table, labels=["ill"])
    split = hash_split(shared_ids)
    encoder = TableEncoder.fit(table.chunks(split.train), columns)
    labels = LabelEncoder.fit(table.chunks(split.train), "ill")
    inputs, answers = EncodedTable(table, encoder), EncodedTable(table, labels)
    inputs.rows(split.train[:128])

What is fitted is fitted to the train ids only, and saved beside the model: `encoder.save(path)`. No network here.
"""

from heterofed.tables.answers import AskedTask, Label, Task
from heterofed.tables.check import TableReport, look_at
from heterofed.tables.columns import Column, Columns, FeatureKind, recognise, refuse_label
from heterofed.tables.encoded import EncodedTable, RowEncoder
from heterofed.tables.encoders import Unseen
from heterofed.tables.encoding import TableEncoder
from heterofed.tables.identities import DecimalIds, Duplicates, MissingIds
from heterofed.tables.labels import LabelEncoder, Unlabelled, labelled_ids
from heterofed.tables.ordered import OrderedTable
from heterofed.tables.reading import TableSource, open_source
from heterofed.tables.splitting import Split, hash_split, stratified_split

__all__ = [
    "AskedTask",
    "Column",
    "Columns",
    "DecimalIds",
    "Duplicates",
    "EncodedTable",
    "FeatureKind",
    "Label",
    "LabelEncoder",
    "MissingIds",
    "OrderedTable",
    "RowEncoder",
    "Split",
    "TableEncoder",
    "TableReport",
    "TableSource",
    "Task",
    "Unlabelled",
    "Unseen",
    "hash_split",
    "labelled_ids",
    "look_at",
    "open_source",
    "recognise",
    "refuse_label",
    "stratified_split",
]
