package encryption

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"google.golang.org/protobuf/proto"
)

// Metadata of a sealed payload. It is readable, and authenticated together with the data.
const (
	// Encoding is the encoding of a sealed payload.
	Encoding = "binary/encrypted"
	// metadataKey names the key that sealed the payload, for people. The ciphertext says it again.
	metadataKey = "encryption-key-id"
	// metadataNamespace and metadataWorkflow are the place that the payload belongs to, as far as it is known.
	metadataNamespace = "encryption-namespace"
	metadataWorkflow  = "encryption-workflow-id"
)

// ErrMoved means that a sealed payload was found in another place than the one that it was sealed for, or was changed.
var ErrMoved = errors.New("the payload was changed, or was sealed for another place")

// ErrUnknownKey means that the keyset lacks the key of a payload. A keyset that is being rotated may have it in a moment.
var ErrUnknownKey = errors.New("the keyset lacks the key of the payload")

// ErrSealed means that a payload is encrypted and that there is no keyset to open it with.
var ErrSealed = errors.New("the payload is encrypted, and no keyset is configured here")

// Sealed says whether a payload is encrypted.
func Sealed(payload *commonpb.Payload) bool {
	return string(payload.GetMetadata()[converter.MetadataEncoding]) == Encoding
}

// place is where a payload belongs. An empty field is not known.
type place struct{ namespace, workflow string }

// of is the place that a context of the SDK tells, within the namespace of the connection.
func (p place) of(ctx converter.SerializationContext) (at place, anywhere bool) {
	switch at := ctx.(type) {
	case converter.WorkflowSerializationContext:
		return place{at.Namespace, at.WorkflowID}, false
	case converter.ActivitySerializationContext:
		return place{at.Namespace, at.WorkflowID}, false
	case converter.NexusSerializationContext:
		// A Nexus operation crosses namespaces: what one side seals the other opens.
		return place{}, true
	default:
		return p, false
	}
}

// holds says whether a payload that was sealed for a place may be found at p.
func (p place) holds(sealed place) bool {
	if p.namespace != "" && sealed.namespace != "" && p.namespace != sealed.namespace {
		return false
	}
	return p.workflow == "" || sealed.workflow == "" || p.workflow == sealed.workflow || scheduled(p.workflow, sealed.workflow)
}

// scheduled says whether a workflow was started by a schedule whose action has the given id: Temporal adds the time.
func scheduled(workflow, action string) bool {
	suffix, ok := strings.CutPrefix(workflow, action+"-")
	if !ok {
		return false
	}
	_, err := time.Parse(time.RFC3339, suffix)
	return err == nil
}

// associated is what the seal covers besides the payload: the place. Lengths keep one field from passing for another.
func (p place) associated() []byte {
	text := []byte("bellhop payload 1\x00")
	for _, field := range []string{p.namespace, p.workflow} {
		text = binary.AppendUvarint(text, uint64(len(field)))
		text = append(text, field...)
	}
	return text
}

// Codec seals and opens payloads. It is a [converter.PayloadCodec], for whoever builds a data converter of their own.
type Codec struct {
	keys *Keyset // nil seals and opens nothing
	at   place
	// anywhere says that payloads of every place are opened, and that none is named when one is sealed.
	anywhere bool
}

var (
	_ converter.PayloadCodec                         = (*Codec)(nil)
	_ converter.PayloadCodecWithSerializationContext = (*Codec)(nil)
)

// WithSerializationContext is part of [converter.PayloadCodecWithSerializationContext].
func (c *Codec) WithSerializationContext(ctx converter.SerializationContext) converter.PayloadCodec {
	return c.within(ctx)
}

func (c *Codec) within(ctx converter.SerializationContext) *Codec {
	at, anywhere := c.at.of(ctx)
	return &Codec{keys: c.keys, at: at, anywhere: anywhere}
}

// Encode seals payloads, with metadata and data. What is sealed stays as it is.
func (c *Codec) Encode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	sealed := make([]*commonpb.Payload, len(payloads))
	for i, payload := range payloads {
		if c.keys == nil || Sealed(payload) {
			sealed[i] = payload
			continue
		}
		var err error
		if sealed[i], err = c.seal(payload); err != nil {
			return nil, err
		}
	}
	return sealed, nil
}

func (c *Codec) seal(payload *commonpb.Payload) (*commonpb.Payload, error) {
	text, err := proto.Marshal(payload)
	if err != nil {
		return nil, fmt.Errorf("encrypt payload: %w", err)
	}
	keys := c.keys.current.Load()
	data, err := keys.aead.Encrypt(text, c.at.associated())
	if err != nil {
		return nil, fmt.Errorf("encrypt payload: %w", err)
	}
	metadata := map[string][]byte{
		converter.MetadataEncoding: []byte(Encoding),
		metadataKey:                strconv.AppendUint(nil, uint64(keys.primary), 10),
	}
	if c.at.namespace != "" {
		metadata[metadataNamespace] = []byte(c.at.namespace)
	}
	if c.at.workflow != "" {
		metadata[metadataWorkflow] = []byte(c.at.workflow)
	}
	return &commonpb.Payload{Metadata: metadata, Data: data}, nil
}

// Decode opens payloads. What is not sealed stays as it is: it is from before encryption was turned on, or from a caller
// without a keyset.
func (c *Codec) Decode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	opened := make([]*commonpb.Payload, len(payloads))
	for i, payload := range payloads {
		if !Sealed(payload) {
			opened[i] = payload
			continue
		}
		var err error
		if opened[i], err = c.open(payload); err != nil {
			return nil, err
		}
	}
	return opened, nil
}

func (c *Codec) open(payload *commonpb.Payload) (*commonpb.Payload, error) {
	if c.keys == nil {
		return nil, ErrSealed
	}
	sealed := place{string(payload.GetMetadata()[metadataNamespace]), string(payload.GetMetadata()[metadataWorkflow])}
	keys := c.keys.current.Load()
	if id, ok := keyID(payload.GetData()); ok && !keys.has(id) {
		return nil, fmt.Errorf("decrypt payload: %w: key %d", ErrUnknownKey, id)
	}
	text, err := keys.aead.Decrypt(payload.GetData(), sealed.associated())
	if err != nil || !c.anywhere && !c.at.holds(sealed) {
		return nil, fmt.Errorf("decrypt payload: %w", ErrMoved)
	}
	var opened commonpb.Payload
	if err := proto.Unmarshal(text, &opened); err != nil {
		return nil, fmt.Errorf("decrypt payload: %w", err)
	}
	return &opened, nil
}

// keyID reads the id of the key out of a ciphertext as Tink writes it: a version and the id.
func keyID(ciphertext []byte) (uint32, bool) {
	const version, prefix = 1, 5
	if len(ciphertext) < prefix || ciphertext[0] != version {
		return 0, false
	}
	return binary.BigEndian.Uint32(ciphertext[1:prefix]), true
}
