package tun

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Device is one end of a link: a TUN interface and the descriptor behind it.
type Device struct {
	fd   int
	name string
}

// offloads lets TCP hand down packets of up to 64 KiB with their checksums left
// open; TUN's interface takes them the same way on the other side.
const offloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6

const devicePath = "/dev/net/tun"

func openHint(err error) string {
	if errors.Is(err, unix.EACCES) {
		return "run as root, or let everybody open it, as most distributions do: chmod 0666 " + devicePath
	}
	return "modprobe tun"
}

// NewDevice makes a TUN interface of that name in the network namespace of the
// calling thread. It goes when the Device is closed. It needs CAP_NET_ADMIN over
// the namespace.
func NewDevice(name string) (*Device, error) {
	fd, err := unix.Open(devicePath, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w (%s)", devicePath, err, openHint(err))
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	d := &Device{fd: fd, name: name}
	if err == nil {
		err = d.SetOffload(true)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make TUN interface %s: %w", name, err)
	}
	return d, nil
}

// SetOffload says whether packets may be larger than the MTU, as TCP hands them
// down. Loss and an exact rate want them as they would be on a wire.
func (d *Device) SetOffload(on bool) error {
	flags := 0
	if on {
		flags = offloads
	}
	if err := unix.IoctlSetInt(d.fd, unix.TUNSETOFFLOAD, flags); err != nil {
		return fmt.Errorf("set offloads of %s: %w", d.name, err)
	}
	return nil
}

// Close removes the interface. No relay may be using it.
func (d *Device) Close() error { return unix.Close(d.fd) }

// read takes one packet; ok is false if there is none now. The call is raw: it
// never waits, and it comes every time round the loop.
func (d *Device) read(p []byte) (n int, ok bool, err error) {
	r, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(d.fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	switch errno {
	case 0:
		return int(r), true, nil
	case unix.EAGAIN, unix.EINTR:
		return 0, false, nil
	}
	return 0, false, fmt.Errorf("read from %s: %w", d.name, errno)
}

// write gives one packet to the interface and says whether it took it.
func (d *Device) write(p []byte) bool {
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(d.fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		if errno != unix.EINTR {
			return errno == 0
		}
	}
}
