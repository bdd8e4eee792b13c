// Admission decodes manifests with upstream's own types, strictly, and runs upstream's defaulting
// and validation, as the webhooks of Knative do, without a cluster.
//
//	helm template … | go run .        or        go run . FILE…
//	go run . serve ADDRESS CERTIFICATE KEY      as the webhooks of an API server: /default, /validate
//
// Kinds without an upstream type are counted, not checked: kubernetes-validate checks the core kinds.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"

	keda "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	eventing "knative.dev/eventing/pkg/apis/eventing/v1"
	eventpolicy "knative.dev/eventing/pkg/apis/eventing/v1alpha1"
	eventtype "knative.dev/eventing/pkg/apis/eventing/v1beta3"
	"knative.dev/eventing/pkg/apis/feature"
	sources "knative.dev/eventing/pkg/apis/sources/v1"
	"knative.dev/pkg/apis"
	"knative.dev/serving/pkg/apis/config"
	serving "knative.dev/serving/pkg/apis/serving/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	grant "sigs.k8s.io/gateway-api/apis/v1beta1"

	yamlv3 "gopkg.in/yaml.v3"
)

// known creates an empty object for each "apiVersion kind" that upstream has a type for.
var known = map[string]func() any{
	"serving.knative.dev/v1 Service":                   func() any { return &serving.Service{} },
	"eventing.knative.dev/v1 Broker":                   func() any { return &eventing.Broker{} },
	"eventing.knative.dev/v1 Trigger":                  func() any { return &eventing.Trigger{} },
	"eventing.knative.dev/v1alpha1 EventPolicy":        func() any { return &eventpolicy.EventPolicy{} },
	"eventing.knative.dev/v1beta3 EventType":           func() any { return &eventtype.EventType{} },
	"sources.knative.dev/v1 PingSource":                func() any { return &sources.PingSource{} },
	"keda.sh/v1alpha1 ScaledJob":                       func() any { return &keda.ScaledJob{} },
	"keda.sh/v1alpha1 ScaledObject":                    func() any { return &keda.ScaledObject{} },
	"keda.sh/v1alpha1 TriggerAuthentication":           func() any { return &keda.TriggerAuthentication{} },
	"gateway.networking.k8s.io/v1 Gateway":             func() any { return &gateway.Gateway{} },
	"gateway.networking.k8s.io/v1 HTTPRoute":           func() any { return &gateway.HTTPRoute{} },
	"gateway.networking.k8s.io/v1beta1 ReferenceGrant": func() any { return &grant.ReferenceGrant{} },
}

type head struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name string `json:"name"`
	} `json:"metadata"`
}

func main() {
	if len(os.Args) == 5 && os.Args[1] == "serve" {
		fmt.Fprintln(os.Stderr, serve(os.Args[2], os.Args[3], os.Args[4]))
		os.Exit(2)
	}
	checked, unknown := map[string]int{}, map[string]int{}
	faults := 0
	err := eachDocument(os.Args[1:], func(document []byte) error {
		var what head
		if err := json.Unmarshal(document, &what); err != nil {
			return err
		}
		kind := what.APIVersion + " " + what.Kind
		newObject, ok := known[kind]
		if !ok {
			unknown[kind]++
			return nil
		}
		checked[kind]++
		if err := admit(apis.WithinCreate(context.Background()), newObject(), document); err != nil {
			faults++
			fmt.Fprintf(os.Stderr, "%s/%s: %v\n", what.Kind, what.Metadata.Name, err)
		}
		return nil
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	report("checked", checked)
	report("not checked", unknown)
	if faults > 0 || len(checked) == 0 {
		fmt.Fprintf(os.Stderr, "%d faults\n", faults)
		os.Exit(1)
	}
}

// admit decodes, defaults and validates an object that is created or changed, as ctx says.
func admit(ctx context.Context, object any, document []byte) error {
	ctx = withConfiguration(ctx)
	if err := defaulted(ctx, object, document); err != nil {
		return err
	}
	if validated, ok := object.(apis.Validatable); ok {
		if fault := validated.Validate(ctx).Filter(apis.ErrorLevel); fault != nil {
			return fault
		}
	}
	if scaled, ok := object.(*keda.ScaledJob); ok {
		return keda.ValidateTriggers(scaled.Spec.Triggers)
	}
	return nil
}

// defaulted decodes the document into the object and sets upstream's defaults.
func defaulted(ctx context.Context, object any, document []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(document))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(object); err != nil {
		return err
	}
	if defaulted, ok := object.(apis.Defaultable); ok {
		defaulted.SetDefaults(withConfiguration(ctx))
	}
	return nil
}

// withConfiguration adds the ConfigMaps of the cluster that differ from upstream's.
func withConfiguration(ctx context.Context) context.Context {
	// the first is enabled by default in config-features of Knative Eventing, policies need the other
	flags := feature.Flags{
		feature.DeliveryTimeout:    feature.Enabled,
		feature.OIDCAuthentication: feature.Enabled,
	}
	ctx = feature.ToContext(ctx, flags)
	// as scripts/kind-up sets it in config-autoscaler, for the chart's initialScale: 0
	settings := config.FromContextOrDefaults(ctx)
	settings.Autoscaler.AllowZeroInitialScale = true
	return config.ToContext(ctx, settings)
}

// eachDocument calls visit with every document of the files, or of standard input, as JSON.
func eachDocument(paths []string, visit func([]byte) error) error {
	if len(paths) == 0 {
		return documentsOf(os.Stdin, visit)
	}
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		err = documentsOf(file, visit)
		file.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

func documentsOf(reader io.Reader, visit func([]byte) error) error {
	decoder := yamlv3.NewDecoder(reader)
	for {
		var document map[string]any
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if document == nil {
			continue
		}
		text, err := json.Marshal(document)
		if err != nil {
			return err
		}
		if err := visit(text); err != nil {
			return err
		}
	}
}

func report(what string, counts map[string]int) {
	kinds := make([]string, 0, len(counts))
	for kind := range counts {
		kinds = append(kinds, kind)
	}
	sort.Strings(kinds)
	for _, kind := range kinds {
		fmt.Printf("%s: %d %s\n", what, counts[kind], kind)
	}
}
