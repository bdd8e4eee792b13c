// Package prometheus pins the servers that build.sh builds where no image of them can be pulled.
package prometheus

import (
	_ "github.com/prometheus/prometheus/cmd/prometheus"
	_ "github.com/prometheus/prometheus/cmd/promtool"
)
