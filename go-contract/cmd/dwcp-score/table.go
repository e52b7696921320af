package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// table is the feature columns of a CSV file.
type table struct {
	count int
	// values are the rows one after the other, in the order of the features.
	values     []float64
	timestamps []string
	// lines are the line numbers of the rows.
	lines []int
}

// readTable reads the columns of the features by name. A missing column, or a value that is no number, is an error that names it.
func readTable(in io.Reader, features []string) (*table, error) {
	reader := csv.NewReader(in)
	reader.ReuseRecord = true
	reader.TrimLeadingSpace = true
	header, err := reader.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("the file is empty; its first line names the columns")
	}
	if err != nil {
		return nil, err
	}
	names := make([]string, len(header))
	for i, name := range header {
		names[i] = strings.TrimSpace(strings.TrimPrefix(name, "\ufeff"))
	}
	columns := make([]int, len(features))
	for j, feature := range features {
		if columns[j] = slices.Index(names, feature); columns[j] < 0 {
			return nil, fmt.Errorf("there is no column %q; the columns are %s", feature, strings.Join(names, ", "))
		}
	}
	timestamp := slices.Index(names, "timestamp")
	t := &table{}
	for {
		record, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return nil, err
		}
		line, _ := reader.FieldPos(0)
		for j, column := range columns {
			x, err := strconv.ParseFloat(strings.TrimSpace(record[column]), 64)
			if err != nil {
				return nil, fmt.Errorf("line %d, column %s: %q is not a number", line, features[j], record[column])
			}
			t.values = append(t.values, x)
		}
		at := ""
		if timestamp >= 0 {
			at = record[timestamp]
		}
		t.timestamps = append(t.timestamps, at)
		t.lines = append(t.lines, line)
		t.count++
	}
}
