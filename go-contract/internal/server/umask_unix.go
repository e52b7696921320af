//go:build unix

package server

import "syscall"

// umask sets the mask of new files for the whole process and gives the way back.
func umask(mask int) (restore func()) {
	before := syscall.Umask(mask)
	return func() { syscall.Umask(before) }
}
