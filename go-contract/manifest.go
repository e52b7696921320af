package anomaly

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// ManifestFile is the name of the file that makes a folder a model set (rule A1).
const ManifestFile = "manifest.json"

// Largest sizes that are read, so that a wrong path does not fill the memory.
const (
	maxManifestBytes = 4 << 20
	maxFileBytes     = 1 << 30
)

// setFiles is a model set as bytes: the manifest, and the SERVING files, all digests checked.
type setFiles struct {
	// id is the SHA-256 of the manifest (rule A1).
	id       string
	dir      string
	manifest *anomalyv1.Manifest
	serving  map[string][]byte
}

// readSetFiles reads the set in a folder (rules A1, A5, A6, A8).
func readSetFiles(folder string, o options) (*setFiles, *Error) {
	// A6: the manifest is resolved once; everything else is read beside the file that was found.
	path, err := filepath.EvalSymlinks(filepath.Join(folder, ManifestFile))
	if err != nil {
		return nil, refuse(CodeManifestMissing, ManifestFile, "%s is no model set: %w", folder, err)
	}
	data, refusal := readFile(path, ManifestFile, maxManifestBytes)
	if refusal != nil {
		return nil, refusal
	}
	if o.checksSignature { // before anybody parses it
		if refusal := checkSignature(filepath.Dir(path), data, o.publicKeys); refusal != nil {
			return nil, refusal
		}
	}
	manifest, refusal := parseManifest(data)
	if refusal != nil {
		return nil, refusal
	}
	digest := sha256.Sum256(data)
	set := &setFiles{
		id: hex.EncodeToString(digest[:]), dir: filepath.Dir(path), manifest: manifest, serving: map[string][]byte{},
	}
	for _, entry := range manifest.GetFiles() {
		if refusal := set.read(entry); refusal != nil {
			return nil, refusal
		}
	}
	return set, set.findStrangers(folder)
}

// parseManifest reads and checks the manifest itself (rule A3).
func parseManifest(data []byte) (*anomalyv1.Manifest, *Error) {
	m := &anomalyv1.Manifest{}
	if err := parseJSON(ManifestFile, data, m, m.GetSchemaVersion); err != nil {
		return nil, err
	}
	serving := map[string]bool{}
	for _, f := range m.GetFiles() {
		path := f.GetPath()
		if path == "" || path == "." || path == ".." || path == ManifestFile || strings.ContainsAny(path, "/\\\x00") {
			return nil, refuse(CodeMetadataInvalid, ManifestFile, "%q is not the name of a file beside the manifest", path)
		}
		if _, twice := serving[path]; twice {
			return nil, refuse(CodeMetadataInvalid, ManifestFile, "%q is listed twice", path)
		}
		if f.GetRole() != anomalyv1.FileRole_FILE_ROLE_SERVING && f.GetRole() != anomalyv1.FileRole_FILE_ROLE_BYPRODUCT {
			return nil, refuse(CodeMetadataInvalid, ManifestFile, "%q has no role", path)
		}
		serving[path] = f.GetRole() == anomalyv1.FileRole_FILE_ROLE_SERVING
	}
	if len(m.GetModels()) == 0 {
		return nil, refuse(CodeMetadataInvalid, ManifestFile, "the set has no model")
	}
	last := anomalyv1.Detector_DETECTOR_UNSPECIFIED
	for _, entry := range m.GetModels() {
		if d := entry.GetDetector(); d <= last || !Detector(d).known() {
			return nil, refuse(CodeMetadataInvalid, ManifestFile, "model %v is unknown, listed twice or out of order", d)
		}
		last = entry.GetDetector()
		switch hasGraph, hasGolden := entry.GetGraph() != "", entry.GetGolden() != ""; {
		case Detector(last) == Ensemble && (hasGraph || !hasGolden):
			return nil, refuse(CodeMetadataInvalid, ManifestFile, "%v has a graph, or no golden vectors", last)
		case Detector(last) != Ensemble && hasGraph != hasGolden:
			return nil, refuse(CodeMetadataInvalid, ManifestFile, "%v has a graph without golden vectors, or the reverse", last)
		}
		for i, name := range []string{entry.GetMetadata(), entry.GetGraph(), entry.GetGolden()} {
			if (name != "" || i == 0) && !serving[name] {
				return nil, refuse(CodeMetadataInvalid, ManifestFile, "%v names %q, which is not listed as SERVING", last, name)
			}
		}
	}
	return m, nil
}

// read checks a file against the manifest, and keeps it when it is needed to serve.
func (s *setFiles) read(entry *anomalyv1.FileEntry) *Error {
	path := filepath.Join(s.dir, entry.GetPath())
	if entry.GetRole() == anomalyv1.FileRole_FILE_ROLE_BYPRODUCT {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		// A by-product is hashed, never opened as what it is (A7).
		return checkByproduct(path, entry)
	}
	data, refusal := readFile(path, entry.GetPath(), maxFileBytes)
	if refusal != nil {
		return refusal
	}
	digest := sha256.Sum256(data)
	if refusal := compareDigest(entry, int64(len(data)), digest[:]); refusal != nil {
		return refusal
	}
	s.serving[entry.GetPath()] = data
	return nil
}

func checkByproduct(path string, entry *anomalyv1.FileEntry) *Error {
	file, err := os.Open(path)
	if err != nil {
		return refuse(CodeFileMissing, entry.GetPath(), "the file cannot be read: %w", err)
	}
	defer file.Close()
	hash := sha256.New()
	size, err := io.Copy(hash, file)
	if err != nil {
		return refuse(CodeFileMissing, entry.GetPath(), "the file cannot be read: %w", err)
	}
	return compareDigest(entry, size, hash.Sum(nil))
}

func compareDigest(entry *anomalyv1.FileEntry, size int64, digest []byte) *Error {
	if got := hex.EncodeToString(digest); got != entry.GetSha256() || size != int64(entry.GetSize()) {
		return refuse(CodeDigestMismatch, entry.GetPath(), "%d bytes with SHA-256 %s; the manifest says %d with %s",
			size, got, entry.GetSize(), entry.GetSha256())
	}
	return nil
}

func readFile(path, name string, limit int64) ([]byte, *Error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, refuse(CodeFileMissing, name, "the file cannot be read: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return nil, refuse(CodeFileMissing, name, "the file cannot be read: %w", err)
	}
	if int64(len(data)) > limit {
		return nil, refuse(CodeDigestMismatch, name, "the file is larger than %d bytes", limit)
	}
	return data, nil
}

// findStrangers refuses a folder of links in which somebody has replaced one of them by another file (rule A6): that file would
// silently not be used.
func (s *setFiles) findStrangers(folder string) *Error {
	for _, entry := range s.manifest.GetFiles() {
		own, err := os.Stat(filepath.Join(s.dir, entry.GetPath()))
		if err != nil {
			continue // a by-product that is not there
		}
		if outer, err := os.Stat(filepath.Join(folder, entry.GetPath())); err == nil && !os.SameFile(own, outer) {
			return refuse(CodeDigestMismatch, entry.GetPath(), "the file in %s is not the one of the released set", folder)
		}
	}
	return nil
}
