package anomaly

import (
	"crypto/tls"
	"crypto/x509"
	"os"

	"google.golang.org/grpc/credentials"
)

// TLSFiles are PEM files for connections over TLS.
type TLSFiles struct {
	// CA has the certificates that vouch for the server; empty for those of the system. It is read once.
	CA string
	// Cert and Key are the client's own certificate, for a server that demands one (mutual TLS); both or none. They are read again for
	// every new connection, so that a renewed certificate needs no restart.
	Cert, Key string
	// ServerName is the name in the server's certificate; empty for the host of the address.
	ServerName string
}

func (f *TLSFiles) credentials() (credentials.TransportCredentials, *Error) {
	config := &tls.Config{ServerName: f.ServerName, MinVersion: tls.VersionTLS12}
	if f.CA != "" {
		pem, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, refuse(CodeInvalidRequest, "tls.ca", "%w; give a file that can be read", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, refuse(CodeInvalidRequest, "tls.ca", "%s has no certificate; give a PEM file", f.CA)
		}
	}
	if f.Cert != "" || f.Key != "" {
		if _, err := tls.LoadX509KeyPair(f.Cert, f.Key); err != nil {
			return nil, refuse(CodeInvalidRequest, "tls.cert", "%w; give a certificate and its key as PEM files", err)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
			return &pair, err
		}
	}
	return credentials.NewTLS(config), nil
}
