"""A head: Ray and MLflow as servers on one machine, and jobs that are submitted to it or to any Ray cluster.

launch        `lwddpm up` and `down`: starts and stops the servers that head.py describes, by means of service.py
head          the servers' commands, ports, folders and addresses; which head runs on this machine
credentials   Ray's token, MLflow's password
monitoring    Prometheus and Grafana beside it, where installed
jobserver     `lwddpm submit` and `jobs`: the client of a cluster's job server; upload.py has what it sends
doctor        `lwddpm doctor`: here, or as a job on a cluster, where nodes.py asks every node
"""
