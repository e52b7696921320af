package anomaly

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// SignatureFile is the name of the signature of a manifest, which stands beside it (rule A8).
const SignatureFile = "manifest.sig"

// maxKeyFileBytes is the largest file of public keys that is read; a key takes 113 bytes in it.
const maxKeyFileBytes = 1 << 16

// KeyFileError says why a file of public keys cannot be used.
type KeyFileError struct {
	// File is its path.
	File string
	// Message is a sentence for people, with the remedy.
	Message string
}

// Error is "FILE: message".
func (e *KeyFileError) Error() string { return e.File + ": " + e.Message }

// WithPublicKeys makes OpenModelSet refuse a set that none of the keys has signed (rule A8): SIGNATURE_MISSING or SIGNATURE_INVALID.
// With no key at all every set is refused. Several keys are for rotation: readers get the old and the new one, then the new one signs,
// then the old one is taken away.
func WithPublicKeys(keys ...ed25519.PublicKey) Option {
	return func(o *options) { o.checksSignature, o.publicKeys = true, keys }
}

// ReadPublicKeys reads PEM files of Ed25519 public keys (BEGIN PUBLIC KEY), each with one key or several. Text around the keys is a
// comment; everything else is refused with a *KeyFileError, and so is a file without a key.
func ReadPublicKeys(paths ...string) ([]ed25519.PublicKey, error) {
	var all []ed25519.PublicKey
	for _, path := range paths {
		keys, err := readKeyFile(path)
		if err != nil {
			return nil, &KeyFileError{path, err.Error()}
		}
		all = append(all, keys...)
	}
	return all, nil
}

const howKeysAreMade = "public keys are PEM files with BEGIN PUBLIC KEY lines, as `dwcp keys new` and openssl write them"

func readKeyFile(path string) ([]ed25519.PublicKey, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the file cannot be read: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxKeyFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("the file cannot be read: %w", err)
	}
	if len(data) > maxKeyFileBytes {
		return nil, fmt.Errorf("more than %d bytes; %s", maxKeyFileBytes, howKeysAreMade)
	}
	return parsePublicKeys(data)
}

// parsePublicKeys gives the keys in the bytes of a PEM file, at least one.
func parsePublicKeys(data []byte) ([]ed25519.PublicKey, error) {
	wanted := bytes.Count(data, []byte("-----BEGIN "))
	var keys []ed25519.PublicKey
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		switch {
		case strings.Contains(block.Type, "PRIVATE KEY"):
			return nil, fmt.Errorf("this is a private key; give the file of the public one, and keep the private one away from here")
		case block.Type != "PUBLIC KEY" || len(block.Headers) > 0:
			return nil, fmt.Errorf("a %s is no PUBLIC KEY; %s", block.Type, howKeysAreMade)
		}
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("a PUBLIC KEY cannot be read (%w); %s", err, howKeysAreMade)
		}
		key, ok := parsed.(ed25519.PublicKey)
		if !ok {
			return nil, fmt.Errorf("a public key is of another kind than Ed25519; %s", howKeysAreMade)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("there is no PUBLIC KEY; %s", howKeysAreMade)
	}
	if len(keys) != wanted { // pem.Decode passes over what is damaged
		return nil, fmt.Errorf("a PEM block is damaged; %s", howKeysAreMade)
	}
	return keys, nil
}

// checkSignature refuses a manifest that none of the keys has signed. dir is where the manifest really is (rule A6).
func checkSignature(dir string, manifest []byte, keys []ed25519.PublicKey) *Error {
	file, err := os.Open(filepath.Join(dir, SignatureFile))
	if err != nil {
		return refuse(CodeSignatureMissing, SignatureFile, "%s cannot be read, and only signed sets are used here: %w", SignatureFile, err)
	}
	defer file.Close()
	signature, err := io.ReadAll(io.LimitReader(file, ed25519.SignatureSize+1))
	if err != nil {
		return refuse(CodeSignatureMissing, SignatureFile, "%s cannot be read, and only signed sets are used here: %w", SignatureFile, err)
	}
	if len(signature) != ed25519.SignatureSize {
		return refuse(CodeSignatureInvalid, SignatureFile, "the file does not have the %d bytes of a signature", ed25519.SignatureSize)
	}
	for _, key := range keys {
		if len(key) == ed25519.PublicKeySize && ed25519.Verify(key, manifest, signature) { // Verify panics on other lengths
			return nil
		}
	}
	return refuse(CodeSignatureInvalid, SignatureFile, "none of the %d public keys has made this signature of this manifest", len(keys))
}
