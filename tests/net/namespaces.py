"""Network namespaces joined by a bad link: packets cross this process, which delays, reorders and loses them.

Each namespace has one address, on a TUN device whose other end is here. Both sides use the kernel's own TCP, so loss
means lost packets. (tc netem does the same, in kernels that have it.) Addresses: 10.77.0.1, 10.77.0.2, …
"""
import fcntl
import heapq
import select
import struct

from k2net import *

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x1, 0x1000
MTU, TCP_MTU, VPN_MTU, SMALLEST_MTU, ETHERNET_MTU = 1200, 1280, 1420, 1300, 1500  # the first has no direct paths
UDP = 17


class BadLink:
    def __init__(self, names, seed=1, mtu=MTU, mtus=None):
        """`mtus`: of the devices of some names, which have another one."""
        self.prefix = f"k2n{os.getpid()}"
        self.names = names
        self.address = {name: f"10.77.0.{i + 1}" for i, name in enumerate(names)}
        self.fds, self.by_address = {}, {}
        self.delay_s = self.jitter_s = self.loss = 0.0
        self.carried = self.lost = self.too_large = 0
        self.without = set()  # protocols (UDP) of which nothing passes, silently
        self.largest = None  # a larger packet vanishes, and nobody is told
        self.mtus = {name: mtu for name in names} | (mtus or {})
        self.rng = random.Random(seed)
        self.stopped = False
        try:
            for name in names:
                self._make(name)
        except OSError as error:
            self.close()
            raise Skip(f"no network namespaces or TUN devices here: {error}") from None
        self.thread = threading.Thread(target=self._carry, daemon=True)
        self.thread.start()

    def _ip(self, *args):
        done = subprocess.run(["ip", *args], capture_output=True, text=True)
        if done.returncode != 0:
            raise OSError(f"ip {' '.join(args)}: {done.stderr.strip()}")

    def namespace(self, name):
        return f"{self.prefix}-{name}"

    def inside(self, name):
        """The prefix that makes a command run there."""
        return ["ip", "netns", "exec", self.namespace(name)]

    def _make(self, name):
        space, device = self.namespace(name), f"{self.prefix}{len(self.fds)}"
        self._ip("netns", "add", space)
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        self.fds[name] = fd
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
        self._ip("link", "set", device, "netns", space)
        inside = ["-n", space]
        self._ip(*inside, "link", "set", "lo", "up")
        self._ip(*inside, "addr", "add", f"{self.address[name]}/24", "dev", device)
        self._ip(*inside, "link", "set", device, "mtu", str(self.mtus[name]), "up")
        self.by_address[socket.inet_aton(self.address[name])] = fd

    def set(self, delay_ms=0.0, jitter_ms=0.0, loss=0.0):
        """Sets one direction, for each packet. `loss` 1: nothing passes, silently."""
        self.delay_s, self.jitter_s, self.loss = delay_ms / 1000, jitter_ms / 1000, loss

    def _carry(self):
        waiting, number = [], 0
        fds = list(self.fds.values())
        while not self.stopped:
            now = time.monotonic()
            while waiting and waiting[0][0] <= now:
                _, _, fd, packet = heapq.heappop(waiting)
                try:
                    os.write(fd, packet)
                except OSError:
                    self.lost += 1  # its queue is full, as a router's may be
            patience = min(0.2, waiting[0][0] - now) if waiting else 0.2
            for fd in select.select(fds, [], [], max(0, patience))[0]:
                for _ in range(64):
                    try:
                        packet = os.read(fd, 65536)
                    except BlockingIOError:
                        break
                    to = self.by_address.get(packet[16:20]) if packet[0] >> 4 == 4 else None
                    if to is None:
                        continue
                    if self.largest and len(packet) > self.largest:
                        self.too_large += 1
                        continue
                    if packet[9] in self.without or self.rng.random() < self.loss:
                        self.lost += 1
                        continue
                    self.carried += 1
                    number += 1
                    due = time.monotonic() + self.delay_s + self.rng.uniform(0, self.jitter_s)
                    heapq.heappush(waiting, (due, number, to, packet))

    def close(self):
        self.stopped = True
        if hasattr(self, "thread"):
            self.thread.join()
        for fd in self.fds.values():
            os.close(fd)
        for name in self.names:
            subprocess.run(["ip", "netns", "del", self.namespace(name)], capture_output=True)
