"""How well a published set tells faults from normal operation.

One step a file: `events` and `faults` say where something is wrong, `scored` scores by the code that serves,
`counts` counts, `figures` has the same with intervals (`bootstrap`) and independent of thresholds (`ranking`),
`baselines` are what a detector must beat, `coverage` checks p-values, `deletion` explanations; `assess` puts them
together, `tables`, `content` and `report` show them, `command` is `dwcp evaluate`.

No point adjustment anywhere: a row counts as found when its own verdict says so.
"""
