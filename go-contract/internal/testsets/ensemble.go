// Package testsets writes model sets for tests from the frozen ones.
package testsets

import (
	"crypto/sha256"
	"encoding/hex"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// Names of the files that WriteEnsemble adds.
const (
	Metadata = "ensemble_metadata.json"
	Golden   = "ensemble.golden.json"
	manifest = "manifest.json"
)

// WriteEnsemble writes a set of all models of the sets in the folders `from`, which have the same features, and an ensemble of them, to
// folder. What is needed to serve is copied, by-products are left out. A later member weighs more than an earlier one.
func WriteEnsemble(folder string, from ...string) error {
	return writeEnsemble(folder, "ensemble.v1", from)
}

// WriteOpenEnsemble is WriteEnsemble with the common scale of rule EN8.
func WriteOpenEnsemble(folder string, from ...string) error {
	return writeEnsemble(folder, "ensemble.v2", from)
}

func writeEnsemble(folder, layout string, from []string) error {
	set := &anomalyv1.Manifest{SchemaVersion: 1}
	meta := &anomalyv1.ModelMetadata{
		SchemaVersion: 1, ModelType: "ensemble", Threshold: midpointBelow(.3), ParityClass: anomalyv1.ParityClass_PARITY_CLASS_EXACT,
		Calibration: &anomalyv1.Calibration{Scores: []float32{.05, .1, .1, .25}, Source: "made up"},
		Graph:       &anomalyv1.Graph{Layout: layout},
		Ensemble:    &anomalyv1.EnsembleParameters{CriticalThreshold: midpointBelow(.7)},
	}
	for _, source := range from {
		var its anomalyv1.Manifest
		if err := read(filepath.Join(source, manifest), &its); err != nil {
			return err
		}
		for _, file := range its.GetFiles() {
			if file.GetRole() != anomalyv1.FileRole_FILE_ROLE_SERVING {
				continue
			}
			data, err := os.ReadFile(filepath.Join(source, file.GetPath()))
			if err != nil {
				return err
			}
			if err := add(set, folder, file.GetPath(), data); err != nil {
				return err
			}
		}
		for _, model := range its.GetModels() {
			var member anomalyv1.ModelMetadata
			if err := read(filepath.Join(source, model.GetMetadata()), &member); err != nil {
				return err
			}
			set.Models = append(set.Models, model)
			join(meta, model.GetDetector(), &member)
		}
	}
	weights := float64(len(set.Models) * (len(set.Models) + 1) / 2)
	for i, member := range meta.Ensemble.Members {
		member.Weight = float64(i+1) / weights
		if layout == "ensemble.v2" {
			member.High = 0
		}
	}
	set.Models = append(set.Models, &anomalyv1.ModelEntry{
		Detector: anomalyv1.Detector_DETECTOR_ENSEMBLE, Metadata: Metadata, Golden: Golden,
	})
	slices.SortFunc(set.Models, func(a, b *anomalyv1.ModelEntry) int { return int(a.GetDetector() - b.GetDetector()) })
	// What the members make of a sample only a scorer knows; what is no sample, everybody.
	golden := &anomalyv1.GoldenFile{SchemaVersion: 1, ModelType: "ensemble", Cases: []*anomalyv1.GoldenCase{
		{Id: "error/no-samples", Comment: "nothing to score", Outcome: &anomalyv1.GoldenCase_Error{
			Error: &anomalyv1.ErrorInfo{Code: anomalyv1.ErrorCode_ERROR_CODE_NO_SAMPLES, Field: "samples"},
		}},
	}}
	for name, message := range map[string]proto.Message{Metadata: meta, Golden: golden} {
		data, err := text(message)
		if err == nil {
			err = add(set, folder, name, data)
		}
		if err != nil {
			return err
		}
	}
	data, err := text(set)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, manifest), data, 0o600)
}

// join adds a member to an ensemble, on the scale of rule EN3.
func join(meta *anomalyv1.ModelMetadata, d anomalyv1.Detector, member *anomalyv1.ModelMetadata) {
	scores := member.GetCalibration().GetScores()
	low := (float64(scores[(len(scores)-1)/2]) + float64(scores[len(scores)/2])) / 2
	meta.Ensemble.Members = append(meta.Ensemble.Members, &anomalyv1.EnsembleMember{
		Detector: d, Threshold: member.GetThreshold(), Low: low, High: low + (member.GetThreshold()-low)/.3,
	})
	meta.NFeatures, meta.FeatureNames, meta.FeatureSchema = member.NFeatures, member.FeatureNames, member.FeatureSchema
	meta.CadenceSeconds = member.CadenceSeconds
	if t := member.GetTimesteps(); t > meta.GetTimesteps() {
		meta.Timesteps = proto.Uint32(t)
	}
}

// midpointBelow is the largest midpoint of two neighbouring float32 numbers below x (rule D2).
func midpointBelow(x float64) float64 {
	for high := math.Nextafter32(float32(x), 1); ; {
		low := math.Nextafter32(high, 0)
		if t := (float64(low) + float64(high)) / 2; t < x {
			return t
		}
		high = low
	}
}

func read(path string, to proto.Message) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return protojson.Unmarshal(data, to)
}

func text(message proto.Message) ([]byte, error) {
	return protojson.MarshalOptions{UseProtoNames: true, Multiline: true}.Marshal(message)
}

// add writes a file and lists it.
func add(set *anomalyv1.Manifest, folder, name string, data []byte) error {
	digest := sha256.Sum256(data)
	set.Files = append(set.Files, &anomalyv1.FileEntry{
		Path: name, Sha256: hex.EncodeToString(digest[:]), Size: uint32(len(data)), Role: anomalyv1.FileRole_FILE_ROLE_SERVING,
	})
	slices.SortFunc(set.Files, func(a, b *anomalyv1.FileEntry) int { return strings.Compare(a.GetPath(), b.GetPath()) })
	return os.WriteFile(filepath.Join(folder, name), data, 0o600)
}
