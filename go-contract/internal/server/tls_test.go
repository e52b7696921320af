package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	certificate, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{certificate, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// sign makes a certificate and its key as PEM.
func (a *authority) sign(t *testing.T, until time.Time) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: serial, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &private.PublicKey, a.key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// files writes certificate and key of a server.
func (a *authority) files(t *testing.T, files TLS, until time.Time) {
	t.Helper()
	certificate, key := a.sign(t, until)
	require.NoError(t, os.WriteFile(files.Cert, certificate, 0o600))
	require.NoError(t, os.WriteFile(files.Key, key, 0o600))
}

// callWith makes one call over a new TLS connection.
func callWith(t *testing.T, address string, server *authority, client ...tls.Certificate) error {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(server.certificate)
	config := &tls.Config{RootCAs: pool, Certificates: client, MinVersion: tls.VersionTLS12}
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	require.NoError(t, err)
	defer connection.Close()
	_, err = anomalyv1.NewScoringServiceClient(connection).Score(t.Context(), scoreRequestOf(forest, row()))
	return err
}

func TestTLSAndItsReplacement(t *testing.T) {
	var text lockedBuffer
	folder, ca := t.TempDir(), newAuthority(t)
	files := TLS{Cert: filepath.Join(folder, "tls.crt"), Key: filepath.Join(folder, "tls.key")}
	ca.files(t, files, time.Now().Add(-time.Minute)) // starts with one that has expired
	settings := Settings{Listen: "127.0.0.1:0", Unix: filepath.Join(folder, "s"), Metrics: "127.0.0.1:0", TLS: files, Limits: limits(8)}
	s := startWith(t, openReference(t), settings, slog.New(slog.NewTextHandler(&text, nil)))
	assert.Contains(t, text.String(), "no longer valid")
	address := s.Addresses[0]
	require.ErrorContains(t, callWith(t, address, ca), "expired")
	_, err := anomalyv1.NewScoringServiceClient(connect(t, s.Addresses[1])).Score(t.Context(), scoreRequestOf(forest, row()))
	require.NoError(t, err, "the unix socket is plain")
	_, err = anomalyv1.NewScoringServiceClient(connect(t, address)).Score(t.Context(), scoreRequestOf(forest, row()))
	require.Equal(t, codes.Unavailable, status.Code(err), "TCP is not")

	works := func(ca *authority) func() bool {
		return func() bool { return callWith(t, address, ca) == nil }
	}
	until := time.Now().Add(time.Hour).Truncate(time.Second)
	ca.files(t, files, until)
	require.Eventually(t, works(ca), 10*time.Second, 50*time.Millisecond)
	assert.Equal(t, until.Unix(), s.service.certificates.expiry().Unix())

	// Bad replacements: no PEM, expired, gone. The one in use stays.
	for name, damage := range map[string]func(){
		"no PEM":  func() { require.NoError(t, os.WriteFile(files.Cert, []byte("x"), 0o600)) },
		"expired": func() { ca.files(t, files, time.Now().Add(-time.Minute)) },
		"gone":    func() { require.NoError(t, os.Remove(files.Key)) },
	} {
		before := text.String()
		damage()
		require.Eventually(t, func() bool { return works(ca)() && len(text.String()) > len(before) }, 10*time.Second, 50*time.Millisecond, name)
		assert.Contains(t, text.String()[len(before):], "certificate refused", name)
	}
	other := newAuthority(t)
	other.files(t, files, until)
	require.Eventually(t, works(other), 10*time.Second, 50*time.Millisecond)
	assert.Error(t, callWith(t, address, ca))

	page := metricsPage(t, s)
	assert.Regexp(t, `dwcp_certificate_reloads_total\{result="swapped"\} 2`, page)
	assert.Regexp(t, `dwcp_certificate_reloads_total\{result="refused"\} [3-6]`, page)
	assert.Regexp(t, `dwcp_certificate_expiry_timestamp_seconds `, page)
}

func TestMutualTLS(t *testing.T) {
	folder, ca, clients := t.TempDir(), newAuthority(t), newAuthority(t)
	files := TLS{Cert: filepath.Join(folder, "c"), Key: filepath.Join(folder, "k"), ClientCA: filepath.Join(folder, "ca")}
	ca.files(t, files, time.Now().Add(time.Hour))
	require.NoError(t, os.WriteFile(files.ClientCA, clients.pem, 0o600))
	pair := func(a *authority, until time.Time) tls.Certificate {
		certificate, err := tls.X509KeyPair(a.sign(t, until))
		require.NoError(t, err)
		return certificate
	}
	set := t.TempDir()
	copySet(t, set, 1, 100)
	settings := Settings{Models: set, Listen: "127.0.0.1:0", TLS: files, Limits: limits(8)}
	s := startWith(t, openReference(t), settings, silent())
	address := s.Addresses[0]
	good := pair(clients, time.Now().Add(time.Hour))
	require.NoError(t, callWith(t, address, ca, good))
	assert.Error(t, callWith(t, address, ca), "no certificate")
	assert.Error(t, callWith(t, address, ca, pair(clients, time.Now().Add(-time.Minute))), "an expired one")
	assert.Error(t, callWith(t, address, ca, pair(ca, time.Now().Add(time.Hour))), "one of another authority")

	pool := x509.NewCertPool()
	pool.AddCert(ca.certificate)
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		RootCAs: pool, Certificates: []tls.Certificate{good}, MinVersion: tls.VersionTLS12,
	})))
	require.NoError(t, err)
	defer connection.Close()
	reloaded, err := anomalyv1.NewOperationsServiceClient(connection).Reload(t.Context(), &anomalyv1.ReloadRequest{})
	require.NoError(t, err)
	assert.True(t, settings.onlyTrusted([]net.Addr{&net.TCPAddr{IP: net.IPv4zero}}), "R6: over mutual TLS, whatever the address")
	assert.True(t, reloaded.GetChanged())
	stream, err := reflectionv1.NewServerReflectionClient(connection).ServerReflectionInfo(t.Context())
	require.NoError(t, err)
	_, err = stream.Recv()
	assert.Equal(t, codes.Unimplemented, status.Code(err), "no reflection with mutual TLS unless asked for")

	assert.True(t, Settings{TLS: files, Reflection: ReflectionOn}.reflection())
	assert.False(t, Settings{Reflection: ReflectionOff}.reflection())
}

func TestTLSSettingsThatAreRefused(t *testing.T) {
	folder := t.TempDir()
	empty := filepath.Join(folder, "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	good := TLS{Cert: filepath.Join(folder, "c"), Key: filepath.Join(folder, "k")}
	newAuthority(t).files(t, good, time.Now().Add(time.Hour))
	for message, files := range map[string]TLS{
		"both --tls-cert and --tls-key": {Key: "k"}, "neither": {ClientCA: "ca"}, "no such file": {Cert: "c", Key: "k"},
		"--tls-client-ca": {Cert: good.Cert, Key: good.Key, ClientCA: empty}, "give a certificate and its key": {Cert: good.Cert, Key: empty},
	} {
		_, err := New(openReference(t), Settings{Listen: "127.0.0.1:0", TLS: files, Limits: limits(1)}, silent())
		require.ErrorAs(t, err, new(StartError))
		assert.ErrorContains(t, err, message)
	}
	_, err := New(openReference(t), Settings{Unix: "s", TLS: good, Limits: limits(1)}, silent())
	assert.ErrorContains(t, err, "--listen")
}

// metricsPage is what Prometheus reads.
func metricsPage(t *testing.T, s *Server) string {
	t.Helper()
	answer, err := http.Get("http://" + s.MetricsAddress + "/metrics")
	require.NoError(t, err)
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return string(page)
}
