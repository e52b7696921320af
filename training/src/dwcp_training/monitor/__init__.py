"""`dwcp monitor`: samples as they come, scored by the code that serves; alarms for people and for Alertmanager.

A source (`tail`, `lines`, `prometheus`) gives chunks of rows and notices; `command` scores them; `alarms` says what was
found; `forward` sends it on.
"""
