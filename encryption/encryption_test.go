package encryption_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/testing/fakekms"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/protobuf/proto"

	"bellhop/encryption"
)

// harness is a keyset in a folder of the test's own.
type harness struct {
	*testing.T
	config encryption.Config
	keys   *encryption.Keyset
}

func setup(t *testing.T) *harness {
	t.Helper()
	h := &harness{T: t, config: encryption.Config{KeysetFile: filepath.Join(t.TempDir(), "keyset.json")}}
	_, err := encryption.Create(h.config)
	require.NoError(t, err)
	h.keys = h.open()
	return h
}

func (h *harness) open() *encryption.Keyset {
	h.Helper()
	keys, err := encryption.Open(h.config)
	require.NoError(h, err)
	return keys
}

// seal encrypts a value for a place.
func (h *harness) seal(value any, at converter.SerializationContext) *commonpb.Payload {
	h.Helper()
	payload, err := within(h.keys.Converters("default").Data(), at).ToPayload(value)
	require.NoError(h, err)
	return payload
}

func (h *harness) read(payload *commonpb.Payload, at converter.SerializationContext) (string, error) {
	var got string
	err := within(h.keys.Converters("default").Data(), at).FromPayload(payload, &got)
	return got, err
}

func within(data converter.DataConverter, at converter.SerializationContext) converter.DataConverter {
	if at == nil {
		return data
	}
	return converter.WithDataConverterSerializationContext(data, at)
}

func in(namespace, id string) converter.SerializationContext {
	return converter.WorkflowSerializationContext{Namespace: namespace, WorkflowID: id}
}

const secret = "token-5a1f"

func TestCodec_Place(t *testing.T) {
	h := setup(t)
	var none converter.SerializationContext
	activity := converter.ActivitySerializationContext{Namespace: "default", WorkflowID: "web-1", ActivityType: "Deliver"}
	nexus := converter.NexusSerializationContext{Endpoint: "bellhop", Service: "Compute", Operation: "provision"}
	for _, row := range []struct {
		name, reason string
		sealed, read converter.SerializationContext
		refused      bool
	}{
		{"Same", "it is where it belongs", in("default", "web-1"), in("default", "web-1"), false},
		{"Activity", "an activity is its workflow's", in("default", "web-1"), activity, false},
		{"OtherWorkflow", "somebody put it into another workflow", in("default", "web-1"), in("default", "web-2"), true},
		{"OtherWorkflowsActivity", "and into another workflow's activity", in("default", "web-2"), activity, true},
		{"OtherNamespace", "namespaces are walls", in("default", "web-1"), in("orders", "web-1"), true},
		{"OtherNamespaceByConnection", "also where only the connection tells", in("orders", "web-1"), none, true},
		{"NoContext", "raw calls have no context", in("default", "web-1"), none, false},
		{"SealedWithoutContext", "a codec server knows the namespace only", none, in("default", "web-1"), false},
		{"SealedWithoutContextElsewhere", "which then is all that binds it", none, in("orders", "web-1"), true},
		{"Scheduled", "Temporal adds the time to the id of a schedule's action", in("default", "web"), in("default", "web-2026-11-29T10:00:00Z"), false},
		{"LooksScheduled", "nothing but a time", in("default", "web"), in("default", "web-1"), true},
		{"Nexus", "a Nexus operation crosses namespaces", in("orders", "caller"), nexus, false},
		{"ForNexus", "in both directions", nexus, in("default", "web-1"), false},
	} {
		t.Run(row.name, func(t *testing.T) {
			payload := h.seal(secret, row.sealed)
			require.NotContains(t, payload.String(), secret)
			got, err := h.read(payload, row.read)
			if row.refused {
				require.ErrorIs(t, err, encryption.ErrMoved, row.reason)
				require.Empty(t, got)
				return
			}
			require.NoError(t, err, row.reason)
			require.Equal(t, secret, got)
		})
	}
}

func TestCodec_Changed(t *testing.T) {
	h := setup(t)
	sealed := h.seal(secret, in("default", "web-1"))
	for reason, change := range map[string]func(*commonpb.Payload){
		"a bit of the data":               func(p *commonpb.Payload) { p.Data[len(p.Data)-1] ^= 1 },
		"cut off":                         func(p *commonpb.Payload) { p.Data = p.Data[:9] },
		"empty":                           func(p *commonpb.Payload) { p.Data = nil },
		"of no key":                       func(p *commonpb.Payload) { p.Data[0] = 0 },
		"another place is claimed":        func(p *commonpb.Payload) { p.Metadata["encryption-workflow-id"] = []byte("web-2") },
		"no place is claimed":             func(p *commonpb.Payload) { delete(p.Metadata, "encryption-workflow-id") },
		"no namespace is claimed":         func(p *commonpb.Payload) { delete(p.Metadata, "encryption-namespace") },
		"one field is moved to the other": func(p *commonpb.Payload) { p.Metadata["encryption-namespace"] = []byte("defaultweb-1") },
		"the namespace and the id change roles": func(p *commonpb.Payload) {
			p.Metadata["encryption-namespace"], p.Metadata["encryption-workflow-id"] = []byte("web-1"), []byte("default")
		},
	} {
		t.Run(reason, func(t *testing.T) {
			changed, ok := proto.Clone(sealed).(*commonpb.Payload)
			require.True(t, ok)
			change(changed)
			_, err := h.read(changed, nil)
			require.ErrorIs(t, err, encryption.ErrMoved)
		})
	}
}

func TestCodec_Clear(t *testing.T) {
	h := setup(t)
	old, err := converter.GetDefaultDataConverter().ToPayload(secret)
	require.NoError(t, err)
	got, err := h.read(old, in("default", "web-1"))
	require.NoError(t, err, "what was written before encryption was turned on stays readable")
	require.Equal(t, secret, got)

	sealed := h.seal(secret, in("default", "web-1"))
	again, err := h.keys.Codec("default").Encode([]*commonpb.Payload{sealed})
	require.NoError(t, err)
	require.True(t, proto.Equal(sealed, again[0]), "what is sealed is not sealed twice")

	var raw converter.RawValue
	require.ErrorIs(t, encryption.Converters{}.Read(sealed, &raw), encryption.ErrSealed, "without a keyset it is said what is missing")
	require.ErrorIs(t, encryption.Converters{}.In("default", "web-1").Read(sealed, &got), encryption.ErrSealed)
}

// Whoever takes a raw value, as bellhop's workflows do, gets what it was given and can tell callers of it.
func TestConverters_RawValue(t *testing.T) {
	h := setup(t)
	data := h.keys.Converters("default").Data()
	var raw converter.RawValue
	require.NoError(t, within(data, in("default", "web-1")).FromPayloads(&commonpb.Payloads{Payloads: []*commonpb.Payload{h.seal(secret, in("default", "web-1"))}}, &raw))
	require.Equal(t, `"`+secret+`"`, string(raw.Payload().GetData()))
	require.NoError(t, within(data, in("default", "web-2")).FromPayloads(&commonpb.Payloads{Payloads: []*commonpb.Payload{h.seal(secret, in("default", "web-1"))}}, &raw))
	require.True(t, encryption.Sealed(raw.Payload()))
}

func TestConverters_Failure(t *testing.T) {
	h := setup(t)
	converters := h.keys.Converters("default").In("default", "web-1")
	cause := errors.New("cause of " + secret)
	failure := converters.Failure().ErrorToFailure(temporal.NewApplicationErrorWithCause("message of "+secret, "IMAGE_PULL_FAILED", cause, map[string]string{"detail": secret}))
	require.NotContains(t, failure.String(), secret)
	require.Equal(t, "IMAGE_PULL_FAILED", failure.GetApplicationFailureInfo().GetType(), "the type stays readable")

	var application *temporal.ApplicationError
	for _, at := range []string{"web-1", "parent"} { // a parent hands on what its child failed with
		err := h.keys.Converters("default").In("default", at).Failure().FailureToError(failure)
		require.ErrorAs(t, err, &application)
		require.Equal(t, "message of "+secret, application.Message())
		var detail map[string]string
		require.NoError(t, application.Details(&detail))
		require.Equal(t, secret, detail["detail"])
		require.ErrorContains(t, errors.Unwrap(application), "cause of "+secret)
	}
}

func TestKeyset_Rotation(t *testing.T) {
	h := setup(t)
	log := &lines{}
	go h.keys.Watch(t.Context(), slog.New(slog.NewTextHandler(log, nil)))
	before := h.seal(secret, in("default", "web-1"))
	first := string(before.GetMetadata()["encryption-key-id"])

	added, err := encryption.Add(h.config)
	require.NoError(t, err)
	require.NoError(t, encryption.Promote(h.config, added.ID))
	other := h.open() // a process that has the new keyset before
	sealed, err := within(other.Converters("default").Data(), in("default", "web-1")).ToPayload(secret)
	require.NoError(t, err)
	require.NotEqual(t, first, string(sealed.GetMetadata()["encryption-key-id"]))
	eventually(t, "it opens what the new key sealed, and seals by it, without a restart", func() bool {
		_, err := h.read(sealed, nil)
		require.True(t, err == nil || errors.Is(err, encryption.ErrUnknownKey), "%s", err)
		return err == nil && string(h.seal(secret, nil).GetMetadata()["encryption-key-id"]) != first
	})
	_, err = h.read(before, nil)
	require.NoError(t, err, "and what the old one did")

	broken, err := os.ReadFile(h.config.KeysetFile)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(h.config.KeysetFile, broken[:100], 0o600))
	eventually(t, "the log says so", func() bool { return strings.Contains(log.String(), "cannot be read again") })
	_, err = h.read(before, nil)
	require.NoError(t, err, "a file that is broken leaves the keys as they were")

	require.NoError(t, os.WriteFile(h.config.KeysetFile, broken, 0o600))
	keys, err := encryption.List(h.config)
	require.NoError(t, err)
	require.Len(t, keys, 2)
	require.NoError(t, encryption.Remove(h.config, keys[0].ID))
	require.Error(t, encryption.Remove(h.config, added.ID), "the one that encrypts stays")
	eventually(t, "a key that was removed opens nothing", func() bool {
		_, err := h.read(before, nil)
		return errors.Is(err, encryption.ErrUnknownKey)
	})
}

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(text)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("this did not happen: " + what)
		}
	}
}

// In workflow code an error would fail the operation, or drop its signal. A key that is yet to come is no reason.
func TestConverters_UnknownKeyInWorkflow(t *testing.T) {
	h, other := setup(t), setup(t)
	payload := other.seal(secret, in("default", "web-1"))
	data := h.keys.Converters("default").Data()
	aware, ok := within(data, in("default", "web-1")).(workflow.ContextAware)
	require.True(t, ok)
	var got string
	require.ErrorIs(t, data.FromPayload(payload, &got), encryption.ErrUnknownKey)
	require.Panics(t, func() { require.NoError(t, aware.WithWorkflowContext(nil).FromPayload(payload, &got)) })
	var raw converter.RawValue
	require.Panics(t, func() { require.NoError(t, aware.WithWorkflowContext(nil).FromPayload(payload, &raw)) })
}

func TestKeyset_KMS(t *testing.T) {
	uri, err := fakekms.NewKeyURI()
	require.NoError(t, err)
	service, err := fakekms.NewClient(uri)
	require.NoError(t, err)
	h := &harness{T: t, config: encryption.Config{KeysetFile: filepath.Join(t.TempDir(), "keyset.json"), KMSKeyURI: uri}}
	_, err = encryption.Create(h.config, service)
	require.NoError(t, err)
	_, err = encryption.Add(h.config, service)
	require.NoError(t, err)
	text, err := os.ReadFile(h.config.KeysetFile)
	require.NoError(t, err)
	require.Contains(t, string(text), "encryptedKeyset")
	h.keys, err = encryption.Open(h.config, service)
	require.NoError(t, err)
	got, err := h.read(h.seal(secret, nil), nil)
	require.NoError(t, err)
	require.Equal(t, secret, got)

	_, err = encryption.Open(h.config)
	require.ErrorContains(t, err, "no key management service is known here")
	_, err = encryption.Open(encryption.Config{KeysetFile: h.config.KeysetFile})
	require.ErrorContains(t, err, "kms_key_uri")
}

func TestKeyset_Faults(t *testing.T) {
	h := setup(t)
	info, err := os.Stat(h.config.KeysetFile)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	_, err = encryption.Create(h.config)
	require.ErrorContains(t, err, "exists")
	_, err = encryption.Open(encryption.Config{})
	require.ErrorContains(t, err, "keyset_file")
	material := "c2VjcmV0LW1hdGVyaWFs"
	require.NoError(t, os.WriteFile(h.config.KeysetFile, []byte(`{"primaryKeyId":1,"key":[{"keyData":{"value":"`+material+`"}`), 0o600))
	_, err = encryption.Open(h.config)
	require.ErrorContains(t, err, h.config.KeysetFile)
	require.NotContains(t, err.Error(), material, "an error shows no key")
}

func TestKeyset_Endpoint(t *testing.T) {
	h := setup(t)
	plain := `{"payloads":[{"metadata":{"encoding":"anNvbi9wbGFpbg=="},"data":"InRva2VuLTVhMWYi"}]}`
	sealed, err := h.keys.EncodeJSON("default", []byte(plain))
	require.NoError(t, err)
	require.NotContains(t, string(sealed), "InRva2VuLTVhMWYi")
	opened, err := h.keys.DecodeJSON("", sealed)
	require.NoError(t, err)
	require.Equal(t, plain, strings.ReplaceAll(string(opened), " ", ""))

	foreign, err := setup(t).keys.EncodeJSON("default", []byte(plain))
	require.NoError(t, err)
	both := strings.Replace(string(foreign), `]}`, `,`, 1) + strings.TrimPrefix(string(sealed), `{"payloads":[`)
	opened, err = h.keys.DecodeJSON("default", []byte(both))
	require.NoError(t, err, "one that cannot be opened does not hide the others")
	require.Contains(t, string(opened), "InRva2VuLTVhMWYi")

	_, err = h.keys.DecodeJSON("default", []byte(secret))
	require.Error(t, err)
	require.NotContains(t, err.Error(), secret)
}

func BenchmarkSeal(b *testing.B) {
	config := encryption.Config{KeysetFile: filepath.Join(b.TempDir(), "keyset.json")}
	_, err := encryption.Create(config)
	require.NoError(b, err)
	keys, err := encryption.Open(config)
	require.NoError(b, err)
	go keys.Watch(b.Context(), slog.New(slog.DiscardHandler))
	codec := keys.Codec("default").WithSerializationContext(in("default", "web-1"))
	payload := []*commonpb.Payload{{Metadata: map[string][]byte{"encoding": []byte("json/plain")}, Data: bytes.Repeat([]byte("a"), 4<<10)}}
	for b.Loop() {
		sealed, err := codec.Encode(payload)
		require.NoError(b, err)
		_, err = codec.Decode(sealed)
		require.NoError(b, err)
	}
}
