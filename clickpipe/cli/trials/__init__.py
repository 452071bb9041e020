"""The tests of recipes, run in all forms of a pipeline.

arranged.py    a recipe -> the same pipeline between given records and a place that is looked at
given.py       the records, also in other orders
forms.py       how it is run: one row for each form -> what came of it
matching.py    what came, held against what was expected
telling.py     that, for people
trial.py       one test: all of it
"""
