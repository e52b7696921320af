package server

import (
	"crypto/ed25519"
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	anomaly "dwcp.internal/anomaly"
)

// A server with keys refuses what is unsigned or signed by another key, at the start and at each reload (rule A8).
func TestOpenerChecksSignatures(t *testing.T) {
	folder := t.TempDir()
	require.NoError(t, os.CopyFS(folder, os.DirFS(referenceSet)))
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	other, _, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)

	_, err = openServed(folder, Settings{PublicKeys: []ed25519.PublicKey{public}})
	require.ErrorIs(t, err, anomaly.CodeSignatureMissing)
	manifest, err := os.ReadFile(filepath.Join(folder, anomaly.ManifestFile))
	require.NoError(t, err)
	unsigned := lookAt(folder)
	require.NoError(t, os.WriteFile(filepath.Join(folder, anomaly.SignatureFile), ed25519.Sign(private, manifest), 0o644))
	assert.NotEqual(t, unsigned, lookAt(folder), "a set that is signed later is looked at again")
	_, err = openServed(folder, Settings{PublicKeys: []ed25519.PublicKey{other}})
	require.ErrorIs(t, err, anomaly.CodeSignatureInvalid)
	for _, keys := range [][]ed25519.PublicKey{{public}, {other, public}, nil} {
		scorer, err := openServed(folder, Settings{PublicKeys: keys})
		require.NoError(t, err)
		assert.NoError(t, scorer.(anomaly.Scorer).Close())
	}
}
