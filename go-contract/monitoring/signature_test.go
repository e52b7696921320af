package monitoring

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"dwcp.internal/anomaly"
)

// With public keys in the environment an unsigned set is an error, and a signed one is used (rule A8).
func TestPublicKeysOfTheEnvironment(t *testing.T) {
	folder := copySet(t)
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKIXPublicKey(public)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "key.pub.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644))

	t.Setenv(publicKeysVariable, file)
	_, err = NewIsolationForestModel(folder, nil)
	require.ErrorIs(t, err, anomaly.CodeSignatureMissing)
	manifest, err := os.ReadFile(filepath.Join(folder, anomaly.ManifestFile))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(folder, anomaly.SignatureFile), ed25519.Sign(private, manifest), 0o644))
	_, err = NewIsolationForestModel(folder, nil)
	require.NoError(t, err)

	// What names no key must not mean that nothing is checked.
	for _, wrong := range []string{string(os.PathListSeparator), file + ".missing"} {
		t.Setenv(publicKeysVariable, wrong)
		_, err = NewIsolationForestModel(folder, nil)
		var unusable *anomaly.KeyFileError
		assert.ErrorAs(t, err, &unusable)
	}
}
