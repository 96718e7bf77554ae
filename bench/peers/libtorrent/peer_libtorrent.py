#!/usr/bin/python3
"""libtorrent (BitTorrent v1, no encryption) between two processes on loopback. Items are pieces, each verified by its
SHA-1; files in /dev/shm.

usage: peer_libtorrent.py serve DATA SIZE | peer_libtorrent.py get ADDR DATA SIZE
bench/peers/README.md describes input and output.
"""

import filecmp
import hashlib
import json
import os
import resource
import shutil
import sys
import tempfile
import time

import libtorrent as lt

SETTINGS = {
    "listen_interfaces": "127.0.0.1:0",
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "allow_multiple_connections_per_ip": True,
    "in_enc_policy": 2,
    "out_enc_policy": 2,
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    # Deep pipelines: the defaults are for slow links.
    "max_out_request_queue": 5000,
    "max_allowed_in_request_queue": 10000,
    "request_queue_time": 10,
    "send_buffer_watermark": 16 << 20,
    "send_buffer_low_watermark": 1 << 20,
    "max_queued_disk_bytes": 64 << 20,
    "tick_interval": 100,
    "unchoke_interval": 1,
    "aio_threads": 2,
    "hashing_threads": 2,
    "auto_sequential": False,
    "choking_algorithm": 0,
    "unchoke_slots_limit": -1,
    "connections_limit": 200,
    "torrent_connect_boost": 10,
    "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.error_notification,
}


def usage():
    raw = resource.getrusage(resource.RUSAGE_SELF)
    return raw.ru_utime + raw.ru_stime, raw.ru_maxrss * 1024


def torrent(data, size):
    """The torrent of one file whose pieces are the items."""
    hashes = bytearray()
    with open(data, "rb") as file:
        while item := file.read(size):
            hashes += hashlib.sha1(item).digest()
    info = {b"name": b"data", b"length": os.path.getsize(data), b"piece length": size, b"pieces": bytes(hashes)}
    return lt.torrent_info(lt.bdecode(lt.bencode({b"info": info})))


def add(session, info, folder):
    params = lt.add_torrent_params()
    params.ti = info
    params.save_path = folder
    params.flags = lt.torrent_flags.update_subscribe  # not paused, not managed: starts at once
    return session.add_torrent(params)


def wait(handle, done):
    while not done(status := handle.status()):
        if status.errc.value():
            sys.exit(status.errc.message())
        time.sleep(0.001)


def serve(data, size):
    folder = tempfile.mkdtemp(dir="/dev/shm")
    try:
        os.link(data, folder + "/data") if os.stat(data).st_dev == os.stat(folder).st_dev else shutil.copy(data, folder + "/data")
        session = lt.session(SETTINGS)
        handle = add(session, torrent(data, size), folder)
        wait(handle, lambda status: status.is_seeding)
        before, _ = usage()
        print(json.dumps({"addr": f"127.0.0.1:{session.listen_port()}"}), flush=True)
        sys.stdin.read()
        after, rss = usage()
        print(json.dumps({"cpu_s": after - before, "peak_rss_bytes": rss}))
    finally:
        shutil.rmtree(folder)


def get(addr, data, size):
    folder = tempfile.mkdtemp(dir="/dev/shm")
    try:
        info = torrent(data, size)
        session = lt.session(SETTINGS)
        host, port = addr.rsplit(":", 1)
        before, _ = usage()
        start = time.monotonic()
        handle = add(session, info, folder)
        handle.connect_peer((host, int(port)))
        wait(handle, lambda status: status.is_seeding)
        wall = time.monotonic() - start
        after, rss = usage()
        handle.flush_cache()  # comes back before the file has it all
        written_by = time.monotonic() + 5
        while not (os.path.exists(folder + "/data") and filecmp.cmp(data, folder + "/data", shallow=False)):
            if time.monotonic() > written_by:
                sys.exit("the data differ")
            time.sleep(0.05)
        items = info.num_pieces()
        print(json.dumps({"items": items, "bytes": items * size, "wall_s": wall, "cpu_s": after - before, "peak_rss_bytes": rss}))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", data, size]:
            serve(data, int(size))
        case ["get", addr, data, size]:
            get(addr, data, int(size))
        case _:
            sys.exit(__doc__)
