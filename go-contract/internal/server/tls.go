package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// TLS are the files for TLS on the TCP address; none without Cert.
type TLS struct {
	// Cert and Key are PEM files: the certificate with those between it and the authority, and its key.
	Cert, Key string
	// ClientCA is a PEM file with authorities; clients must have a certificate of one of them. Empty asks clients for none.
	ClientCA string
}

func (t TLS) check(listen string) error {
	switch {
	case t == TLS{}:
		return nil
	case t.Cert == "" || t.Key == "":
		return cannotStart("TLS needs both --tls-cert and --tls-key; give both, or neither of the --tls flags")
	case listen == "":
		return cannotStart("--tls-cert is for TCP; add --listen HOST:PORT, or leave it out for a unix socket")
	}
	return nil
}

// mutual says whether clients must have a certificate.
func (t TLS) mutual() bool { return t.ClientCA != "" }

// certificates keep a certificate that is read again when its files change. What cannot be used is refused, and the one in use stays.
type certificates struct {
	files   TLS
	log     *slog.Logger
	reloads *prometheus.CounterVec

	mutex   sync.Mutex
	config  *tls.Config
	leaf    *x509.Certificate
	seen    [3]fileLook
	checked time.Time
}

// fileLook is what can be seen of a file without reading it.
type fileLook struct {
	size  int64
	time  time.Time
	inode uint64
	gone  bool
}

// checkEvery is how often files are looked at, at most.
const checkEvery = time.Second

// openCertificates reads the files. An error is a StartError.
func openCertificates(files TLS, log *slog.Logger, reloads *prometheus.CounterVec) (*certificates, error) {
	c := &certificates{files: files, log: log, reloads: reloads, checked: time.Now()}
	c.seen = c.look()
	config, leaf, err := files.read()
	if err != nil {
		return nil, cannotStart("%v", err)
	}
	if time.Now().After(leaf.NotAfter) {
		log.Warn("the certificate is no longer valid; clients will refuse it", "file", files.Cert, "until", leaf.NotAfter)
	}
	c.config, c.leaf = config, leaf
	return c, nil
}

// read reads and checks the files.
func (t TLS) read() (*tls.Config, *x509.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("--tls-cert %s with --tls-key %s: %w; give a certificate and its key as PEM files", t.Cert, t.Key, plainReason(err))
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
	}
	if t.mutual() {
		pem, err := os.ReadFile(t.ClientCA)
		if err != nil {
			return nil, nil, fmt.Errorf("--tls-client-ca %s: %w; give a PEM file", t.ClientCA, plainReason(err))
		}
		config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !config.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, nil, fmt.Errorf("--tls-client-ca %s: there is no certificate in it; give a PEM file", t.ClientCA)
		}
		config.SessionTicketsDisabled = true // each connection shows its certificate, to the authorities of that moment
	}
	return config, pair.Leaf, nil
}

// plainReason is an error without the path, which the message names already.
func plainReason(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

func (c *certificates) look() (seen [3]fileLook) {
	for i, file := range []string{c.files.Cert, c.files.Key, c.files.ClientCA} {
		if info, err := os.Stat(file); err == nil {
			seen[i] = fileLook{size: info.Size(), time: info.ModTime(), inode: inode(info)}
		} else {
			seen[i].gone = true
		}
	}
	return seen
}

// current gives what connections use from now on.
func (c *certificates) current() (*tls.Config, *x509.Certificate) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if now := time.Now(); now.Sub(c.checked) >= checkEvery {
		c.checked = now
		if seen := c.look(); seen != c.seen {
			c.seen = seen
			c.reload(now)
		}
	}
	return c.config, c.leaf
}

// reload reads the files again. A certificate that is no longer valid does not replace one that is.
func (c *certificates) reload(now time.Time) {
	config, leaf, err := c.files.read()
	if err == nil && now.After(leaf.NotAfter) && now.Before(c.leaf.NotAfter) {
		err = fmt.Errorf("--tls-cert %s: it was valid until %v; give one that is valid", c.files.Cert, leaf.NotAfter)
	}
	if err != nil {
		c.reloads.WithLabelValues(refused).Inc()
		c.log.Error("certificate refused; the one in use stays", "error", err)
		return
	}
	c.config, c.leaf = config, leaf
	c.reloads.WithLabelValues(swapped).Inc()
	c.log.Info("certificate swapped", "until", leaf.NotAfter)
}

// expiry is when the certificate in use ends to be valid.
func (c *certificates) expiry() time.Time {
	_, leaf := c.current()
	return leaf.NotAfter
}

// transport gives TLS to TCP connections; unix sockets stay plain, their mode is their access control.
type transport struct {
	credentials.TransportCredentials
	plain credentials.TransportCredentials
}

func (c *certificates) transport() credentials.TransportCredentials {
	config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now, _ := c.current()
		return now, nil
	}
	return transport{credentials.NewTLS(config), insecure.NewCredentials()}
}

// ServerHandshake is part of credentials.TransportCredentials.
func (t transport) ServerHandshake(connection net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if connection.LocalAddr().Network() == "unix" {
		return t.plain.ServerHandshake(connection)
	}
	return t.TransportCredentials.ServerHandshake(connection)
}

// Clone is part of credentials.TransportCredentials.
func (t transport) Clone() credentials.TransportCredentials {
	return transport{t.TransportCredentials.Clone(), t.plain.Clone()}
}
