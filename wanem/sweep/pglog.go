package sweep

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// transaction is a line of pgbench's log.
type transaction struct {
	began time.Time     // or was due, with a rate
	took  time.Duration // from then on
}

// parsePgbenchLog reads a log of pgbench --log, one transaction a line:
//
//	client  number  latency in us  script  end in s since 1970  its us  [lag in us]
//
// A transaction that failed is an error.
func parsePgbenchLog(r io.Reader) (list []transaction, err error) {
	lines := bufio.NewScanner(r)
	for number := 1; lines.Scan(); number++ {
		fields := strings.Fields(lines.Text())
		t, err := parseTransaction(fields)
		if err != nil {
			return nil, fmt.Errorf("parse pgbench's log, line %d %q: %w", number, lines.Text(), err)
		}
		list = append(list, t)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read pgbench's log: %w", err)
	}
	return list, nil
}

func parseTransaction(fields []string) (t transaction, err error) {
	if len(fields) < 6 {
		return t, fmt.Errorf("%d fields, want at least 6", len(fields))
	}
	if fields[2] == "failed" || fields[2] == "skipped" {
		return t, fmt.Errorf("a transaction %s", fields[2])
	}
	var v [3]int64
	for i, at := range []int{2, 4, 5} {
		if v[i], err = strconv.ParseInt(fields[at], 10, 64); err != nil || v[i] < 0 || v[i] > 1<<40 {
			return t, fmt.Errorf("field %d is no time", at+1)
		}
	}
	t.took = time.Duration(v[0]) * time.Microsecond
	t.began = time.Unix(v[1], v[2]*1000).Add(-t.took)
	return t, nil
}

// window takes the transactions that began within the measured time, which begins
// warmUp after the first of all.
func window(all []transaction, warmUp, duration time.Duration) (measured, error) {
	m := measured{latency: newHistogram()}
	if len(all) == 0 {
		return m, fmt.Errorf("pgbench committed nothing")
	}
	first := all[0].began
	for _, t := range all {
		if t.began.Before(first) {
			first = t.began
		}
	}
	start := first.Add(warmUp)
	end, last := start.Add(duration), start
	for _, t := range all {
		if t.began.Before(start) || !t.began.Before(end) {
			continue
		}
		record(m.latency, t.took)
		if done := t.began.Add(t.took); done.After(last) {
			last = done
		}
	}
	if m.latency.TotalCount() == 0 {
		return m, fmt.Errorf("no transaction began within the %v that are measured: use a longer --duration", duration)
	}
	m.elapsed = last.Sub(start)
	return m, nil
}
