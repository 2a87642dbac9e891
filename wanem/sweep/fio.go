package sweep

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// fioArgs returns fio's arguments. What stands before a job file is a default
// for its jobs, so the file may leave out how the volume is reached.
func fioArgs(c Config, source Source) []string {
	args := []string{"--output-format=json+", "--aux-path=" + c.Out, "--thread", "--end_fsync=1"}
	if source.Path != "" {
		args = append(args, "--ioengine=libaio", "--direct=1", "--filename="+source.Path)
	} else {
		args = append(args, "--ioengine=nbd", "--uri="+source.URI)
	}
	if c.jobFile() {
		return append(args, c.Workload)
	}
	args = append(args, "--name=lockstep", "--rw=randwrite", "--time_based", "--randrepeat=0",
		"--bs="+strconv.Itoa(c.BlockSize),
		"--iodepth="+strconv.Itoa(c.QueueDepth),
		"--ramp_time="+fioTime(c.WarmUp),
		"--runtime="+fioTime(c.Duration))
	if c.Rate > 0 {
		args = append(args, "--rate_process=poisson", fmt.Sprintf("--rate_iops=%.0f", c.Rate))
	}
	return args
}

func fioTime(d time.Duration) string { return fmt.Sprintf("%dus", d.Microseconds()) }

func runFio(ctx context.Context, c Config, source Source) (measured, error) {
	cmd := groupCommand(ctx, "fio", fioArgs(c, source)...)
	// A job file of the user's can name the volume where the defaults do not reach.
	cmd.Env = append(os.Environ(), "LOCKSTEP_URI="+source.URI, "LOCKSTEP_PATH="+source.Path)
	out, err := runToEnd(cmd)
	if errors.Is(err, exec.ErrNotFound) {
		return measured{}, fmt.Errorf("%w: install the package fio, or use --workload builtin", err)
	}
	if err != nil {
		return measured{}, err
	}
	return parseFio(out)
}

// fioReport is the part of fio's json+ output that is used here. Times of
// histograms are in ns, runtime in ms.
type fioReport struct {
	Jobs []struct {
		Name  string  `json:"jobname"`
		Error int     `json:"error"`
		Read  fioSide `json:"read"`
		Write fioSide `json:"write"`
	} `json:"jobs"`
}

type fioSide struct {
	Runtime int64   `json:"runtime"`
	IOs     int64   `json:"total_ios"`
	CLat    fioBins `json:"clat_ns"`
	Lat     fioBins `json:"lat_ns"`
}

type fioBins struct {
	Bins map[string]int64 `json:"bins"`
}

// parseFio merges the jobs of a run: their writes, or, if none wrote, their reads.
func parseFio(out []byte) (measured, error) {
	// fio prints warnings in front of its JSON.
	if i := bytes.IndexByte(out, '{'); i > 0 {
		out = out[i:]
	}
	var report fioReport
	if err := json.Unmarshal(out, &report); err != nil {
		return measured{}, fmt.Errorf("parse fio's json+ output: %w", err)
	}
	var writes, reads []fioSide
	for _, job := range report.Jobs {
		if job.Error != 0 {
			return measured{}, fmt.Errorf("fio job %s: error %d", job.Name, job.Error)
		}
		if job.Write.IOs > 0 {
			writes = append(writes, job.Write)
		}
		if job.Read.IOs > 0 {
			reads = append(reads, job.Read)
		}
	}
	if len(writes) == 0 {
		writes = reads
	}
	return mergeFio(writes)
}

func mergeFio(sides []fioSide) (measured, error) {
	m := measured{latency: newHistogram()}
	for _, side := range sides {
		bins := side.CLat.Bins
		if len(bins) == 0 {
			bins = side.Lat.Bins
		}
		if err := addBins(m.latency, bins); err != nil {
			return m, err
		}
		m.elapsed = max(m.elapsed, time.Duration(side.Runtime)*time.Millisecond)
	}
	if m.latency.TotalCount() == 0 || m.elapsed == 0 {
		return m, errors.New("parse fio's output: no latencies in it: let the job write or read, for at least a millisecond, with clat_percentiles on")
	}
	return m, nil
}

func addBins(h *hdrhistogram.Histogram, bins map[string]int64) error {
	for text, count := range bins {
		ns, err := strconv.ParseInt(text, 10, 64)
		if err != nil || ns < 0 || count < 0 {
			return fmt.Errorf("parse fio's output: bin %q: %d is no latency in ns and its count", text, count)
		}
		if err := h.RecordValues(min(max(ns, 1), int64(maxLatency)), count); err != nil {
			return fmt.Errorf("parse fio's output: bin %q: %w", text, err)
		}
	}
	return nil
}
