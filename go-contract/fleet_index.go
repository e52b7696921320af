package anomaly

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

const (
	// FleetFile is the name of the file that makes a folder a fleet (rule FL1).
	FleetFile = "fleet.json"
	// fleetSets is the folder of its model sets, and fleetCurrent the link to the fleet in use, where there is one.
	fleetSets, fleetCurrent = "sets", "current"

	maxFleetBytes = 1 << 30
)

// fleetIndex is an index that was read and checked.
type fleetIndex struct {
	id  string
	dir string
	// features are name and unit of each feature.
	features [][2]string
	// sets has the id of the set of each series.
	sets map[string]string
	// global is the id of the set of other series; empty for none (rule FL3).
	global string
}

// IsFleet says whether a folder is a fleet, and not a model set.
func IsFleet(path string) bool {
	info, err := os.Stat(filepath.Join(FleetDir(path), FleetFile))
	return err == nil && info.Mode().IsRegular()
}

// FleetDir is the folder of a fleet's index: where the link `current` leads to, if there is one (rule FL1).
func FleetDir(path string) string {
	current := filepath.Join(path, fleetCurrent)
	if info, err := os.Lstat(current); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		path = current
	}
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		return resolved
	}
	return path
}

// readFleetIndex reads the index of the fleet in a folder, and nothing else (rule FL6).
func readFleetIndex(path string) (*fleetIndex, *Error) {
	dir := FleetDir(path)
	data, refusal := readFile(filepath.Join(dir, FleetFile), FleetFile, maxFleetBytes)
	if refusal != nil {
		if errors.Is(refusal, fs.ErrNotExist) {
			return nil, refuse(CodeManifestMissing, FleetFile, "%s is no fleet: %w", path, errors.Unwrap(refusal))
		}
		return nil, refusal
	}
	message := &anomalyv1.FleetIndex{}
	if refusal := parseJSON(FleetFile, data, message, message.GetSchemaVersion); refusal != nil {
		return nil, refusal
	}
	digest := sha256.Sum256(data)
	index := &fleetIndex{
		id: hex.EncodeToString(digest[:]), dir: dir, sets: make(map[string]string, len(message.GetSeries())), global: message.GetGlobalSetId(),
	}
	if err := index.take(message); err != nil {
		return nil, refuse(CodeMetadataInvalid, FleetFile, "%w", err)
	}
	return index, nil
}

// take checks a message and takes over what scoring needs (rule FL6).
func (x *fleetIndex) take(message *anomalyv1.FleetIndex) error {
	seen := map[string]bool{}
	for j, f := range message.GetFeatureSchema().GetFeatures() {
		if f.GetName() == "" || seen[f.GetName()] {
			return fmt.Errorf("feature_schema.features[%d] is %q, empty or there twice", j, f.GetName())
		}
		seen[f.GetName()] = true
		x.features = append(x.features, [2]string{f.GetName(), f.GetUnit()})
	}
	if len(x.features) == 0 {
		return errors.New("feature_schema has no features")
	}
	if x.global != "" && !isSetID(x.global) {
		return fmt.Errorf("global_set_id %.80q is not 64 hexadecimal digits", x.global)
	}
	ids := map[string]string{} // many series share one set: one string for each
	last := ""
	for i, s := range message.GetSeries() {
		name, id := s.GetName(), s.GetModelSetId()
		switch {
		case name <= last: // the first is compared with an empty one, so that an empty name is refused, too
			return fmt.Errorf("series[%d].name %.64q is empty, there twice or not in ascending order", i, name)
		case len(name) > MaxSeriesBytes:
			return fmt.Errorf("series[%d].name has %d bytes, more than %d", i, len(name), MaxSeriesBytes)
		case !isSetID(id):
			return fmt.Errorf("series[%d].model_set_id %.80q is not 64 hexadecimal digits", i, id)
		case s.GetOrigin() == anomalyv1.FleetOrigin_FLEET_ORIGIN_UNSPECIFIED || anomalyv1.FleetOrigin_name[int32(s.GetOrigin())] == "":
			return fmt.Errorf("series[%d].origin is %d, which is unknown", i, s.GetOrigin())
		}
		if ids[id] == "" {
			ids[id] = strings.Clone(id)
		}
		last = name
		x.sets[strings.Clone(name)] = ids[id]
	}
	return nil
}

// isSetID says whether a text may be the id of a model set (rule A1).
func isSetID(id string) bool {
	return len(id) == 64 && strings.Trim(id, "0123456789abcdef") == ""
}

// set gives the id of the set that scores a series (rule FL3).
func (x *fleetIndex) set(series string) (string, *Error) {
	if id := x.sets[series]; id != "" {
		return id, nil
	}
	if err := CheckSeries(series); err != nil {
		return "", AsError(err)
	}
	switch {
	case series == "":
		return "", refuse(CodeInvalidRequest, "series", "no series is named; a fleet has a model set for each")
	case x.global == "":
		return "", refuse(CodeUnknownSeries, "series", "the fleet has no series %.64q, and no set for those that it does not list", series)
	}
	return x.global, nil
}

// has says whether the index names a set.
func (x *fleetIndex) has() func(id string) bool {
	ids := map[string]bool{x.global: true}
	for _, id := range x.sets {
		ids[id] = true
	}
	return func(id string) bool { return ids[id] }
}

// CheckSeries refuses the name of a series that is too long for any server (rule FL3).
func CheckSeries(series string) error {
	if len(series) > MaxSeriesBytes {
		return refuse(CodeInvalidRequest, "series", "the name has %d bytes; at most %d are allowed", len(series), MaxSeriesBytes)
	}
	return nil
}
