"""Monthly retraining: collect, leave out what was not normal, train, compare with the model in use, promote or not.

```
collect.py       the last days of rows, from files or from `range_queries.py`
set_apart.py     what is held out, and what the champion alarmed on
marked.py        what operators marked, in these rows
challenger.py    trains the same detectors on these rows
measures.py      both models on the same held-out rows and the same injected faults
bootstrap.py     how sure a difference is
gate.py          the decision, row by row
command.py       all of it for a person, under `lock.py`
```
"""
