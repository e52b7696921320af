//go:build unix

package server

import (
	"io/fs"
	"syscall"
)

// inode is the number of a file, so that another file with the same name, size and time is noticed.
func inode(info fs.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(stat.Ino)
	}
	return 0
}
