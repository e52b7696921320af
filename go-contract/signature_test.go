package anomaly

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// signedSet is a copy of the reference set with a signature by a new key, and that key.
func signedSet(t *testing.T) (folder string, public ed25519.PublicKey, private ed25519.PrivateKey) {
	t.Helper()
	folder = t.TempDir()
	require.NoError(t, os.CopyFS(folder, os.DirFS(referenceSet)))
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	sign(t, folder, private)
	return folder, public, private
}

func sign(t *testing.T, folder string, key ed25519.PrivateKey) {
	t.Helper()
	manifest, err := os.ReadFile(filepath.Join(folder, ManifestFile))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(folder, SignatureFile), ed25519.Sign(key, manifest), 0o644))
}

// change rewrites a file of a folder.
func change(t *testing.T, folder, name string, edit func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(folder, name))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(folder, name), edit(data), 0o644))
}

func TestSignedSetsAreOpened(t *testing.T) {
	folder, public, _ := signedSet(t)
	other, _, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	for name, options := range map[string][]Option{
		"its key":               {WithPublicKeys(public)},
		"its key after another": {WithPublicKeys(other, public)},
		"no key":                nil,
	} {
		t.Run(name, func(t *testing.T) {
			set, err := OpenModelSet(folder, options...)
			require.NoError(t, err)
			assert.NoError(t, set.Close())
		})
	}
}

func TestRefusedSignatures(t *testing.T) {
	other, otherPrivate, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	none := func(*testing.T, string) {}
	edited := func(name string, edit func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, folder string) { change(t, folder, name, edit) }
	}
	flip := func(at int) func([]byte) []byte {
		return func(data []byte) []byte { data[at] ^= 1; return data }
	}
	for name, c := range map[string]struct {
		damage func(t *testing.T, folder string)
		code   Code
		keys   func(public ed25519.PublicKey) []ed25519.PublicKey
	}{
		"no signature":     {damage: func(t *testing.T, folder string) { require.NoError(t, os.Remove(filepath.Join(folder, SignatureFile))) }, code: CodeSignatureMissing},
		"a folder instead": {damage: folderInstead, code: CodeSignatureMissing},
		"a link to nowhere": {damage: func(t *testing.T, folder string) {
			require.NoError(t, os.Remove(filepath.Join(folder, SignatureFile)))
			require.NoError(t, os.Symlink("nowhere", filepath.Join(folder, SignatureFile)))
		}, code: CodeSignatureMissing},
		"a bit of the manifest":       {damage: edited(ManifestFile, flip(100)), code: CodeSignatureInvalid},
		"a byte behind the manifest":  {damage: edited(ManifestFile, func(d []byte) []byte { return append(d, '\n') }), code: CodeSignatureInvalid},
		"a manifest that is no JSON":  {damage: edited(ManifestFile, func([]byte) []byte { return []byte("{") }), code: CodeSignatureInvalid},
		"the first bit of it":         {damage: edited(SignatureFile, flip(0)), code: CodeSignatureInvalid},
		"the last bit of it":          {damage: edited(SignatureFile, flip(63)), code: CodeSignatureInvalid},
		"a short signature":           {damage: edited(SignatureFile, func(d []byte) []byte { return d[:63] }), code: CodeSignatureInvalid},
		"a long signature":            {damage: edited(SignatureFile, func(d []byte) []byte { return append(d, 0) }), code: CodeSignatureInvalid},
		"an empty signature":          {damage: edited(SignatureFile, func([]byte) []byte { return nil }), code: CodeSignatureInvalid},
		"zeros":                       {damage: edited(SignatureFile, func([]byte) []byte { return make([]byte, 64) }), code: CodeSignatureInvalid},
		"another key":                 {damage: none, code: CodeSignatureInvalid, keys: func(ed25519.PublicKey) []ed25519.PublicKey { return []ed25519.PublicKey{other} }},
		"no key at all":               {damage: none, code: CodeSignatureInvalid, keys: func(ed25519.PublicKey) []ed25519.PublicKey { return nil }},
		"a key of the wrong length":   {damage: none, code: CodeSignatureInvalid, keys: func(ed25519.PublicKey) []ed25519.PublicKey { return []ed25519.PublicKey{{1, 2}} }},
		"signed by somebody else":     {damage: func(t *testing.T, folder string) { sign(t, folder, otherPrivate) }, code: CodeSignatureInvalid},
		"the signature of other data": {damage: edited(SignatureFile, func([]byte) []byte { return ed25519.Sign(otherPrivate, []byte("another manifest")) }), code: CodeSignatureInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			folder, public, _ := signedSet(t)
			c.damage(t, folder)
			keys := []ed25519.PublicKey{public}
			if c.keys != nil {
				keys = c.keys(public)
			}
			_, err := OpenModelSet(folder, WithPublicKeys(keys...))
			var refusal *Error
			require.ErrorAs(t, err, &refusal)
			assert.Equal(t, c.code, refusal.Code, refusal.Message)
			assert.Equal(t, SignatureFile, refusal.Field)
		})
	}
}

func folderInstead(t *testing.T, folder string) {
	require.NoError(t, os.Remove(filepath.Join(folder, SignatureFile)))
	require.NoError(t, os.Mkdir(filepath.Join(folder, SignatureFile), 0o755))
}

// What a signature says nothing about is found by the digests that it does cover.
func TestASignedSetWithAnotherFileIsRefused(t *testing.T) {
	folder, public, _ := signedSet(t)
	change(t, folder, "isolation_forest.onnx", func(data []byte) []byte { data[len(data)/2] ^= 1; return data })
	_, err := OpenModelSet(folder, WithPublicKeys(public))
	require.ErrorIs(t, err, CodeDigestMismatch)
}

// The signature is the one beside the manifest that links lead to, not one in the folder of the links.
func TestSignaturesAndLinks(t *testing.T) {
	release, public, private := signedSet(t)
	folder := t.TempDir()
	require.NoError(t, os.Symlink(release, filepath.Join(folder, "current")))
	for _, name := range []string{ManifestFile, "isolation_forest.onnx"} {
		require.NoError(t, os.Symlink(filepath.Join("current", name), filepath.Join(folder, name)))
	}
	_, err := OpenModelSet(folder, WithPublicKeys(public))
	require.NoError(t, err)
	require.NoError(t, os.Rename(filepath.Join(release, SignatureFile), filepath.Join(folder, SignatureFile)))
	_, err = OpenModelSet(folder, WithPublicKeys(public))
	require.ErrorIs(t, err, CodeSignatureMissing)
	sign(t, release, private)
	require.NoError(t, os.WriteFile(filepath.Join(folder, SignatureFile), []byte("not looked at"), 0o644))
	_, err = OpenModelSet(folder, WithPublicKeys(public))
	require.NoError(t, err)
}

func pemOf(t testing.TB, kind string, key any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func TestPublicKeyFiles(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	second, _, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	one, two := pemOf(t, "PUBLIC KEY", public), pemOf(t, "PUBLIC KEY", second)
	path := filepath.Join(t.TempDir(), "key.pem")

	for name, text := range map[string]string{
		"alone": one, "comments": "# key of 2026\n" + one + "# the end\n", "windows": "\r\n" + one, "rotation": one + two, "without a line end": one[:len(one)-1],
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
			keys, err := ReadPublicKeys(path)
			require.NoError(t, err)
			assert.Equal(t, public, keys[0])
		})
	}
	keys, err := ReadPublicKeys()
	require.NoError(t, err)
	assert.Empty(t, keys)

	for name, text := range map[string]string{
		"empty":         "",
		"text":          "no key here\n",
		"private":       string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})),
		"certificate":   pemOf(t, "CERTIFICATE", public),
		"another curve": pemOf(t, "PUBLIC KEY", &curve.PublicKey),
		"damaged":       one[:60] + "\n" + one[70:],
		"second half":   one + two[:60],
		"no key inside": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("junk")})),
		"too large":     one + string(make([]byte, maxKeyFileBytes)),
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
			_, err := ReadPublicKeys(path)
			var wrong *KeyFileError
			require.ErrorAs(t, err, &wrong)
			assert.Equal(t, path, wrong.File)
		})
	}
	_, err = ReadPublicKeys(filepath.Join(t.TempDir(), "missing.pem"))
	require.Error(t, err)
}

// FuzzPublicKeys: whatever the bytes are, they give keys of the right length, at least one, or an error.
func FuzzPublicKeys(f *testing.F) {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(f, err)
	one := pemOf(f, "PUBLIC KEY", public)
	for _, seed := range []string{"", one, one + one, "text\n" + one, one[:50], "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := parsePublicKeys(data)
		if (err == nil) != (len(keys) > 0) {
			t.Fatalf("%d keys and error %v", len(keys), err)
		}
		for _, key := range keys {
			if len(key) != ed25519.PublicKeySize {
				t.Fatalf("a key of %d bytes", len(key))
			}
		}
	})
}
