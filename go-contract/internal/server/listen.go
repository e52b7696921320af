package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// socketMode is the mode of a unix socket. Owner and group may connect: a folder and a group are all the access control that a
// sidecar needs.
const socketMode = 0o660

// longestSocket is how many bytes fit into sun_path.
const longestSocket = 107

// StartError says why the server cannot start, for a reason that is not its model set: an address or a file. It names the remedy.
type StartError string

// Error is the sentence.
func (e StartError) Error() string { return string(e) }

func cannotStart(format string, args ...any) error { return StartError(fmt.Sprintf(format, args...)) }

// splitAddress takes `host:port` or `[v6]:port` apart. No host would be all interfaces, unasked.
func splitAddress(flag, address string) (host, port string, err error) {
	at := strings.LastIndexByte(address, ':')
	if at >= 0 {
		host, port = strings.TrimSuffix(strings.TrimPrefix(address[:at], "["), "]"), address[at+1:]
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", "", cannotStart("%s %q is no address; write it as %s, port 0 for any free one", flag, address, DefaultListen)
	}
	if host == "" {
		return "", "", cannotStart("%s %q names no host; write 127.0.0.1%[2]s for this machine alone, 0.0.0.0%[2]s if every interface is meant", flag, address)
	}
	return host, port, nil
}

// oneAddress is the number of a host. A name such as `localhost` may stand for two; a port in use on one of them must not go
// unnoticed, so one is chosen here.
func oneAddress(flag, host string) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(found) == 0 {
		return netip.Addr{}, cannotStart("%s: host %q is not known; write %s", flag, host, DefaultListen)
	}
	for _, a := range found {
		if a.Unmap().Is4() {
			return a.Unmap(), nil
		}
	}
	return found[0], nil
}

// listenTCP binds an address and gives what clients may pass to gRPC.
func listenTCP(listen string) (net.Listener, string, error) { return listenAt("--listen", listen) }

// listenMetrics is listenTCP for the page of metrics.
func listenMetrics(listen string) (net.Listener, string, error) { return listenAt("--metrics", listen) }

func listenAt(flag, listen string) (net.Listener, string, error) {
	host, port, err := splitAddress(flag, listen)
	if err != nil {
		return nil, "", err
	}
	number, err := oneAddress(flag, host)
	if err != nil {
		return nil, "", err
	}
	address := net.JoinHostPort(number.String(), port)
	listener, err := net.Listen(network(number), address)
	if err != nil {
		why, remedy := err, "Choose"
		if errors.Is(err, syscall.EADDRINUSE) {
			remedy = fmt.Sprintf("Stop the program that uses port %s, or choose", port)
		}
		for inner := err; inner != nil; inner = errors.Unwrap(inner) {
			why = inner // the last one is what the system said
		}
		return nil, "", cannotStart("cannot listen on %s: %v. %s another with %s HOST:PORT (0: any free one).", address, why, remedy, flag)
	}
	_, bound, _ := net.SplitHostPort(listener.Addr().String())
	return listener, net.JoinHostPort(number.String(), bound), nil
}

// network is the one to listen on for an address and nothing else: `tcp` would make 0.0.0.0 every IPv6 interface too.
func network(number netip.Addr) string {
	if number.Is6() {
		return "tcp"
	}
	return "tcp4"
}

// listenUnix makes a unix socket. It goes away when the listener is closed.
func listenUnix(file string) (net.Listener, string, error) {
	path, err := filepath.Abs(file)
	if err != nil {
		return nil, "", cannotStart("--unix %s: %v", file, err)
	}
	if err := claimSocket(path); err != nil {
		return nil, "", err
	}
	// Set before the socket exists, so that there is no moment with another mode.
	restore := umask(0o777 &^ socketMode)
	listener, err := net.Listen("unix", path)
	restore()
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ENOTDIR):
		return nil, "", cannotStart("--unix %s: the folder is not there or not writable; create it or choose another", path)
	case err != nil:
		return nil, "", cannotStart("--unix %s: cannot listen there; choose another path", path)
	}
	return listener, "unix:" + path, nil
}

// claimSocket makes room for a socket: it removes one that nobody listens on, and nothing else.
func claimSocket(path string) error {
	if len(path) > longestSocket {
		return cannotStart("--unix %s: the path is longer than %d bytes; choose a shorter one", path, longestSocket)
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil // not there; what else may be wrong, listening will say
	}
	if info.Mode().Type() != fs.ModeSocket {
		return cannotStart("--unix %s: a file that is no socket is there; remove it or choose another path", path)
	}
	if somebodyListens(path) {
		return cannotStart("--unix %s: another server listens there; stop it or choose another path", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return cannotStart("--unix %s: the folder is not there or not writable; create it or choose another", path)
	}
	return nil
}

// somebodyListens is true too when the queue is full or permission is missing: hands off then.
func somebodyListens(path string) bool {
	connection, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		connection.Close()
	}
	return !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist)
}
