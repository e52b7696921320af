package server

import (
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"

	anomaly "dwcp.internal/anomaly"
)

// look is what can be seen of a model folder without opening it. Two looks that are equal mean that nothing changed.
type look uint64

// lookAt looks at a folder: at name, size, time and number of every file beside the manifest or the index of a fleet, links resolved (rule A6), and in the folder
// itself when that is another one. Where there is no manifest, or no folder, that is what is seen.
func lookAt(folder string) look {
	hash := fnv.New64a()
	file := filepath.Join(folder, anomaly.ManifestFile)
	if anomaly.IsFleet(folder) { // its sets never change (rule FL1)
		file = filepath.Join(anomaly.FleetDir(folder), anomaly.FleetFile)
	}
	path, err := filepath.EvalSymlinks(file)
	if err != nil {
		fmt.Fprintf(hash, "no manifest\n")
		return look(hash.Sum64())
	}
	dir := filepath.Dir(path)
	folders := []string{dir}
	if outer, err := filepath.EvalSymlinks(folder); err == nil && outer != dir {
		folders = append(folders, outer)
	}
	for _, f := range folders {
		fmt.Fprintf(hash, "%q\n", f)
		entries, err := os.ReadDir(f)
		if err != nil {
			fmt.Fprintf(hash, "unreadable\n")
		}
		for _, entry := range entries {
			name := filepath.Join(f, entry.Name())
			info, err := os.Stat(name)
			switch {
			case err != nil:
				fmt.Fprintf(hash, "%q is gone\n", entry.Name())
			case info.Mode().IsRegular():
				fmt.Fprintf(hash, "%q %d %d %d\n", entry.Name(), info.Size(), info.ModTime().UnixNano(), inode(info))
			}
		}
	}
	return look(hash.Sum64())
}
