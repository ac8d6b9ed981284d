package httpapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"

	"bellhop"
	"bellhop/internal/reload"
)

// TLSConfig is how connections to the API are encrypted. The files are read again when they change: connections that are
// made from then on use what is in them.
type TLSConfig struct {
	// CertFile has the certificate and what it is signed by, as PEM. Required.
	CertFile string `json:"cert_file"`
	// KeyFile has the certificate's private key, as PEM. Required.
	KeyFile string `json:"key_file" file:"secret"`
	// ClientCAFile has the authorities, as PEM, of which callers need a certificate besides their token. Default: none,
	// a token is enough.
	ClientCAFile string `json:"client_ca_file"`
}

func (t *TLSConfig) check() error {
	var faults bellhop.Faults
	for name, file := range map[string]string{"cert_file": t.CertFile, "key_file": t.KeyFile, "client_ca_file": t.ClientCAFile} {
		if file == "" {
			if name != "client_ca_file" {
				faults.Add(name, "is required")
			}
			continue
		}
		_, err := reload.Read(file)
		faults.Note(name, err)
	}
	if len(faults) == 0 {
		_, err := t.open()
		faults.Note("", err)
	}
	return faults.Err()
}

// open makes the configuration of a server of the files. Each change of the files makes another one, with session tickets
// of its own: a session that began with a certificate that is not trusted any more cannot be resumed.
func (t *TLSConfig) open() (*reload.Value[*tls.Config], error) {
	files := []string{t.CertFile, t.KeyFile}
	if t.ClientCAFile != "" {
		files = append(files, t.ClientCAFile)
	}
	return reload.New(func(contents [][]byte) (*tls.Config, error) {
		var faults bellhop.Faults
		certificate, err := tls.X509KeyPair(contents[0], contents[1])
		if err != nil {
			faults.Add("cert_file", "with key_file: %s", err)
		}
		config := &tls.Config{
			MinVersion:   tls.VersionTLS12,
			Certificates: []tls.Certificate{certificate},
			NextProtos:   []string{"h2", "http/1.1"},
		}
		if len(contents) > 2 {
			config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
			if !config.ClientCAs.AppendCertsFromPEM(contents[2]) {
				faults.Add("client_ca_file", "has no certificate in PEM")
			}
		}
		return config, faults.Err()
	}, files...)
}

// tlsListener makes each connection one of TLS, by the configuration as it is when the connection comes.
type tlsListener struct {
	net.Listener
	config *reload.Value[*tls.Config]
	// accepted has the configurations of connections that the server has not noted yet.
	accepted sync.Map
}

// Accept is part of [net.Listener].
func (l *tlsListener) Accept() (net.Conn, error) {
	plain, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	config := l.config.Get()
	conn := tls.Server(plain, config)
	l.accepted.Store(conn, config)
	return conn, nil
}

type tlsConfigKey struct{}

// note remembers by which configuration a connection was made.
func (l *tlsListener) note(ctx context.Context, conn net.Conn) context.Context {
	config, _ := l.accepted.LoadAndDelete(conn)
	return context.WithValue(ctx, tlsConfigKey{}, config)
}

// follow has connections that are older than the files end with their next answer, and refuses the callers whose
// certificates are not trusted any more.
func (l *tlsListener) follow(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if now := l.config.Get(); r.Context().Value(tlsConfigKey{}) != any(now) {
			w.Header().Set("Connection", "close")
			if err := trusted(r.TLS, now); err != nil {
				newProblem(CodeForbidden, "the certificate of this connection is not trusted any more").write(w)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// trusted says whether the certificate that a caller has shown would be accepted by a configuration.
func trusted(state *tls.ConnectionState, by *tls.Config) error {
	if by.ClientCAs == nil {
		return nil
	}
	if state == nil || len(state.PeerCertificates) == 0 {
		return errors.New("there is no certificate")
	}
	between := x509.NewCertPool()
	for _, certificate := range state.PeerCertificates[1:] {
		between.AddCert(certificate)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: by.ClientCAs, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return fmt.Errorf("verify the certificate of a caller: %w", err)
	}
	return nil
}
