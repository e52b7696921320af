// Package server is dwcp.anomaly.v1.ScoringService over any anomaly.Scorer, to the outside the same as the Python sidecar.
//
// wire.go and decode.go read requests, method.go is the way of every call, service.go has the methods. server.go binds, answers and
// stops; listen.go and umask_*.go give it TCP and unix sockets; run.go is the whole life of the process.
package server
