package anomaly

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// authority makes certificates for 127.0.0.1 that are good for an hour.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.sign("ca", &x509.Certificate{IsCA: true, KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true})
	return a
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// sign writes name.pem and name.key.
func (a *authority) sign(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.Subject = pkix.Name{CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, by := a.cert, a.key
	if parent == nil {
		parent, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	require.NoError(a.t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(a.t, err)
	require.NoError(a.t, os.WriteFile(a.file(name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(a.t, os.WriteFile(a.file(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	cert, err := x509.ParseCertificate(der)
	require.NoError(a.t, err)
	return cert, key
}

func (a *authority) server(name string) credentials.TransportCredentials {
	a.sign(name, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"sidecar.test"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	pair, err := tls.LoadX509KeyPair(a.file(name+".pem"), a.file(name+".key"))
	require.NoError(a.t, err)
	return credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}})
}

func (a *authority) client(name string) {
	a.sign(name, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

// serveTCP serves on a free port of the loopback interface.
func serveTCP(t *testing.T, opts ...grpc.ServerOption) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	serveOn(t, listener, &scripted{id: "a", outcome: answering}, opts...)
	return listener.Addr().String()
}

func TestTLS(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	address := serveTCP(t, grpc.Creds(a.server("server")))
	ask := func(opts ...SidecarOption) error {
		s, err := DialSidecar(t.Context(), address, append(opts, WithDeadline(5*time.Second), WithRetries(0))...)
		if err == nil {
			s.Close()
		}
		return err
	}
	require.NoError(t, ask(WithTLS(TLSFiles{CA: a.file("ca.pem")})))
	require.NoError(t, ask(WithTLS(TLSFiles{CA: a.file("ca.pem"), ServerName: "sidecar.test"})))
	require.ErrorIs(t, ask(WithTLS(TLSFiles{CA: stranger.file("ca.pem")})), ErrUnavailable)
	require.ErrorIs(t, ask(WithTLS(TLSFiles{CA: a.file("ca.pem"), ServerName: "other.test"})), ErrUnavailable)
	require.ErrorIs(t, ask(WithTLS(TLSFiles{})), ErrUnavailable, "the system does not vouch for it")
	require.ErrorIs(t, ask(), ErrUnavailable, "plain")
}

func TestMutualTLS(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	a.client("client")
	stranger.client("client")
	known := x509.NewCertPool()
	known.AddCert(a.cert)
	a.server("server")
	pair, err := tls.LoadX509KeyPair(a.file("server.pem"), a.file("server.key"))
	require.NoError(t, err)
	address := serveTCP(t, grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: known,
	})))
	ask := func(files TLSFiles) error {
		s, err := DialSidecar(t.Context(), address, WithTLS(files), WithDeadline(5*time.Second), WithRetries(0))
		if err == nil {
			s.Close()
		}
		return err
	}
	files := TLSFiles{CA: a.file("ca.pem"), Cert: a.file("client.pem"), Key: a.file("client.key")}
	require.NoError(t, ask(files))
	require.ErrorIs(t, ask(TLSFiles{CA: files.CA}), ErrUnavailable)
	require.ErrorIs(t, ask(TLSFiles{CA: files.CA, Cert: stranger.file("client.pem"), Key: stranger.file("client.key")}), ErrUnavailable)

	// A renewed certificate is used by the next connection.
	s, err := DialSidecar(t.Context(), address, WithTLS(files), WithDeadline(5*time.Second), WithRetries(0))
	require.NoError(t, err)
	defer s.Close()
	for _, name := range []string{"client.pem", "client.key"} {
		data, err := os.ReadFile(stranger.file(name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(a.file(name), data, 0o600))
	}
	var v Verdict
	require.NoError(t, s.Score(t.Context(), oneSample, &v), "a connection that stands is not touched")
	require.ErrorIs(t, ask(files), ErrUnavailable)
}

// TestUnixSocketsStayPlain: with TLS asked for, a socket in the same list is used as it is.
func TestUnixSocketsStayPlain(t *testing.T) {
	a := newAuthority(t)
	worker := &scripted{id: "a", outcome: answering}
	socket, _ := serveUnix(t, worker)
	s := dialFake(t, serveTCP(t, grpc.Creds(a.server("server")))+","+socket, WithTLS(TLSFiles{CA: a.file("ca.pem")}))
	ready(t, s)
	var v Verdict
	for range 10 {
		require.NoError(t, s.Score(t.Context(), oneSample, &v))
	}
	assert.EqualValues(t, 5, worker.calls.Load())
}

func TestTLSFilesThatAreNone(t *testing.T) {
	a := newAuthority(t)
	for field, files := range map[string]TLSFiles{
		"tls.ca":   {CA: a.file("none.pem")},
		"tls.cert": {CA: a.file("ca.pem"), Cert: a.file("ca.pem")},
	} {
		_, err := DialSidecar(t.Context(), "127.0.0.1:1", WithTLS(files))
		require.ErrorIs(t, err, CodeInvalidRequest)
		assert.Equal(t, field, AsError(err).Field)
	}
	_, err := DialSidecar(t.Context(), "127.0.0.1:1", WithTLS(TLSFiles{CA: a.file("ca.key")}))
	require.ErrorIs(t, err, CodeInvalidRequest, "a key is no certificate")
}
