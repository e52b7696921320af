// Package keyfiles is the flag --public-key of the commands (rule A8).
package keyfiles

import (
	"crypto/ed25519"
	"flag"
	"fmt"
	"strings"

	anomaly "dwcp.internal/anomaly"
)

// Files are the files that the flag names, in its order.
type Files []string

var _ flag.Value = (*Files)(nil)

// Add adds the flag to those of a command.
func (f *Files) Add(flags *flag.FlagSet) {
	flags.Var(f, "public-key", "PEM `file` of Ed25519 public keys; a set that none of them has signed is refused; may be given several times "+
		"(default: signatures are not looked at)")
}

// String is the files, for the flag package.
func (f *Files) String() string { return strings.Join(*f, ",") }

// Set adds a file, for the flag package.
func (f *Files) Set(path string) error {
	*f = append(*f, path)
	return nil
}

// Read gives the keys in the files; none when no file is named. What is wrong with a file is an *anomaly.KeyFileError.
func (f *Files) Read() ([]ed25519.PublicKey, error) {
	keys, err := anomaly.ReadPublicKeys(*f...)
	if err != nil {
		return nil, fmt.Errorf("--public-key: %w", err)
	}
	return keys, nil
}

// Options are those for anomaly.OpenModelSet; none when no file is named.
func (f *Files) Options() ([]anomaly.Option, error) {
	keys, err := f.Read()
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	return []anomaly.Option{anomaly.WithPublicKeys(keys...)}, nil
}
