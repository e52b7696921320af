"""What operators say of alarms: true, false, or an incident that no alarm told of.

```
marks.py     one mark, and what a valid one is
store.py     marks in a SQLite file, for several writers and readers at once
table.py     marks as CSV
rates.py     precision and recall among what is marked, by day, week or month
command.py   all of it for a person
```
"""
