"""Fleets: one model set for each link, or each cluster of similar links, from partitioned Parquet (rules FL1 to FL9).

`train.py` and `score.py` drive; `tasks.py` and `scoring.py` are what a worker does with one link; `engines.py` says
where: in a loop, in processes, or on Ray.
"""
