"""The addresses in the cluster, and the configuration of its programs."""

from typing import Final

NODES: Final = ("n1", "n2", "n3")
ADDRESSES: Final = {
    "n1": "10.77.0.11",
    "n2": "10.77.0.12",
    "n3": "10.77.0.13",
    "etcd": "10.77.0.20",
    "proxy": "10.77.0.30",
}
SCOPE: Final = "books"

ETCD: Final = (
    "etcd",
    "--data-dir={folder}/etcd",
    "--listen-client-urls=http://10.77.0.20:2379",
    "--advertise-client-urls=http://10.77.0.20:2379",
    "--listen-peer-urls=http://10.77.0.20:2380",
    "--initial-advertise-peer-urls=http://10.77.0.20:2380",
    "--initial-cluster=default=http://10.77.0.20:2380",
    "--unsafe-no-fsync",
    "--enable-v2",
)

STORES: Final = {"2": "etcd: {host: '10.77.0.20:2379'}", "3": "etcd3: {hosts: '10.77.0.20:2379'}"}
"""Patroni's name for etcd, by version of the protocol.

With version 3, a Patroni before 3.0.3 that resumes after its lease expired overwrites the new leader's key
(https://github.com/patroni/patroni/pull/2689). pg_rewind then discards what the new primary acknowledged.
"""

# 20 s is the lowest ttl that Patroni accepts: an unreachable primary keeps its role that long. `fsync` is
# off, because processes are killed here, never the machine.
PATRONI: Final = """
scope: books
name: {node}
restapi: {{listen: '{address}:8008', connect_address: '{address}:8008'}}
{store}
bootstrap:
  dcs:
    ttl: 20
    loop_wait: 2
    retry_timeout: 5
    primary_start_timeout: 20
    maximum_lag_on_failover: 104857600
    synchronous_mode: {synchronous}
    synchronous_mode_strict: {synchronous}
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters:
        max_connections: 150
        shared_buffers: 128MB
        wal_keep_size: 512MB
        wal_log_hints: 'on'
        hot_standby_feedback: 'on'
        synchronous_commit: 'on'
        fsync: 'off'
        logging_collector: 'off'
  initdb: [{{encoding: UTF8}}, {{locale: C.UTF-8}}, data-checksums, no-sync]
postgresql:
  listen: '{address}:5432'
  connect_address: '{address}:5432'
  data_dir: {folder}/{node}/data
  bin_dir: /usr/lib/postgresql/15/bin
  pgpass: {folder}/{node}/pgpass
  authentication:
    superuser: {{username: postgres, password: x}}
    replication: {{username: replicator, password: x}}
    rewind: {{username: rewinder, password: x}}
  parameters: {{unix_socket_directories: '{folder}/{node}'}}
  pg_hba: [local all all trust, host replication all 10.77.0.0/24 trust, host all all 10.77.0.0/24 trust]
"""

# Clients connect through a socket file, which works from any network namespace.
HAPROXY: Final = """
defaults
  mode tcp
  retries 2
  timeout client 30m
  timeout server 30m
  timeout connect 3s
  timeout check 2s
listen primary
  bind unix@{folder}/sql/.s.PGSQL.5432 mode 777
  option httpchk OPTIONS /primary
  http-check expect status 200
  default-server inter 1s fall 2 rise 1 on-marked-down shutdown-sessions
  server n1 10.77.0.11:5432 check port 8008
  server n2 10.77.0.12:5432 check port 8008
  server n3 10.77.0.13:5432 check port 8008
"""
