//go:build tools

// Package tools keeps the client in go.mod.
package tools

import _ "helm.sh/helm/v3/cmd/helm"
