package server

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// FuzzDecode compares the decoders with the generated code, each on the memory of earlier inputs.
func FuzzDecode(f *testing.F) {
	for _, m := range []proto.Message{
		scoreRequestOf(forest, row(), row()), scoreRequestOf(-1, rowsOf(300)...), batchRequestOf(lstm, row()),
		&anomalyv1.ScoreRequest{Explain: 3, ModelSetId: "ü", Series: "ä"}, &anomalyv1.ScoreBatchRequest{Layout: 2, Explain: 1, ModelSetId: "x", Series: "link-7"},
	} {
		b, err := proto.Marshal(m)
		require.NoError(f, err)
		f.Add(b)
	}
	for _, b := range []string{
		"", "\x08\x01\x08\x02", "\x12\x09\x09aaaaaaaa", "\x12\x02\x08\x05", "\x09aaaaaaaa", "\x4b\x08\x01\x4c", "\x4b\x54", "\x0d1234",
		"\x12\x14\x0a\x08aaaaaaaa\x0a\x08bbbbbbbb", "\x12\x03abc\x12\x01z", "\x22\x02\xc3\x28", "\x2a\x01\xff", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
	} {
		f.Add([]byte(b))
	}
	var score scoreRequest
	var batch batchRequest
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4096 {
			t.Skip("enough for groups too deep")
		}
		compareScore(t, b, &score)
		compareBatch(t, b, &batch)
		sameRefusal(t, b, proto.Unmarshal(b, new(anomalyv1.GetModelSetRequest)), decodeNothing(b))
	})
}

// sameRefusal says whether both sides accept b. Only with long varints may one side refuse what the other accepts.
func sameRefusal(t *testing.T, b []byte, wantErr, err error) (accepted bool) {
	if !longVarint(b) {
		require.Equal(t, wantErr == nil, err == nil, "%v, %v", wantErr, err)
	}
	return wantErr == nil && err == nil
}

// longVarint says whether there may be a varint of more than 5 bytes in b.
func longVarint(b []byte) bool {
	run := 0
	for _, x := range b {
		if run++; x < 0x80 {
			run = 0
		}
		if run == 5 {
			return true
		}
	}
	return false
}

func compareScore(t *testing.T, b []byte, got *scoreRequest) {
	var want anomalyv1.ScoreRequest
	wantErr, err := proto.Unmarshal(b, &want), got.decode(b)
	if !sameRefusal(t, b, wantErr, err) {
		return
	}
	require.Equal(t, []any{int32(want.GetDetector()), int32(want.GetExplain()), want.GetModelSetId(), want.GetSeries()},
		[]any{int32(got.detector), int32(got.explain), got.modelSetID, got.series})
	require.Len(t, got.samples, min(len(want.GetSamples()), 257))
	for i, sample := range got.samples {
		require.Equal(t, bits(want.GetSamples()[i].GetValues()), bits(sample))
	}
}

func compareBatch(t *testing.T, b []byte, got *batchRequest) {
	var want anomalyv1.ScoreBatchRequest
	wantErr, err := proto.Unmarshal(b, &want), got.decode(b)
	if !sameRefusal(t, b, wantErr, err) {
		return
	}
	require.Equal(t, []any{int32(want.GetDetector()), int32(want.GetExplain()), int32(want.GetLayout()), want.GetModelSetId(), want.GetSeries()},
		[]any{int32(got.detector), int32(got.explain), int32(got.layout), got.modelSetID, got.series})
	require.Equal(t, len(want.GetRows()), 8*len(got.rows)+got.rest)
	for i, x := range got.rows {
		require.Equal(t, binary.LittleEndian.Uint64(want.GetRows()[8*i:]), math.Float64bits(x))
	}
}

func bits(values []float64) []uint64 {
	list := make([]uint64, 0, len(values))
	for _, x := range values {
		list = append(list, math.Float64bits(x))
	}
	return list
}

// TestLimitsOfThePythonParser: both sidecars refuse the same bytes. tests/sidecar/test_go_server.py asks both.
func TestLimitsOfThePythonParser(t *testing.T) {
	nested := func(depth int) []byte {
		b := make([]byte, 0, 2*depth)
		for range depth {
			b = append(b, 9<<3|3)
		}
		for range depth {
			b = append(b, 9<<3|4)
		}
		return b
	}
	for name, test := range map[string]struct {
		bytes []byte
		ok    bool
	}{
		"groups 100":         {nested(100), true},
		"groups 101":         {nested(101), false},
		"tag of 5 bytes":     {[]byte("\x88\x80\x80\x80\x00\x01"), true},
		"tag of 6 bytes":     {[]byte("\x88\x80\x80\x80\x80\x00\x01"), false},
		"length of 6 bytes":  {[]byte("\x12\x82\x80\x80\x80\x80\x00\x08\x05"), false},
		"varint of 10 bytes": {[]byte("\x08\x81\x80\x80\x80\x80\x80\x80\x80\x80\x02"), true},
		"varint of 11 bytes": {[]byte("\x08\x81\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"), false},
	} {
		assert.Equal(t, test.ok, new(scoreRequest).decode(test.bytes) == nil, name)
	}
}

func TestDecodingAllocatesNothing(t *testing.T) {
	b, err := proto.Marshal(scoreRequestOf(lstm, rowsOf(10)...))
	require.NoError(t, err)
	var r scoreRequest
	require.NoError(t, r.decode(b))
	assert.Zero(t, testing.AllocsPerRun(100, func() { _ = r.decode(b) }))
}
