package encryption

import (
	"context"
	"errors"

	commonpb "go.temporal.io/api/common/v1"
	failurepb "go.temporal.io/api/failure/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// Converters are how payloads and failures are written and read. The zero value is Temporal's default: in the clear.
type Converters struct {
	data    converter.DataConverter
	failure converter.FailureConverter
}

// Apply sets the converters of a client.
func (c Converters) Apply(options *client.Options) {
	options.DataConverter, options.FailureConverter = c.data, c.failure
}

// Data converts payloads.
func (c Converters) Data() converter.DataConverter {
	if c.data == nil {
		return converter.GetDefaultDataConverter() //nolint:forbidigo // nothing is encrypted
	}
	return c.data
}

// Failure converts failures.
func (c Converters) Failure() converter.FailureConverter {
	if c.failure == nil {
		return temporal.GetDefaultFailureConverter() //nolint:forbidigo // nothing is encrypted
	}
	return c.failure
}

// In are the converters for what belongs to a workflow.
func (c Converters) In(namespace, workflowID string) Converters {
	if c == (Converters{}) {
		return c
	}
	at := converter.WorkflowSerializationContext{Namespace: namespace, WorkflowID: workflowID}
	within := Converters{data: converter.WithDataConverterSerializationContext(c.Data(), at)}
	if c.failure != nil {
		within.failure = converter.WithFailureConverterSerializationContext(c.failure, at)
	}
	return within
}

// Read reads a payload. One that is encrypted is [ErrSealed] where nothing opens it.
func (c Converters) Read(payload *commonpb.Payload, into any) error {
	err := c.Data().FromPayload(payload, into)
	raw, ok := into.(*converter.RawValue)
	if c.data == nil && Sealed(payload) && (err != nil || ok && Sealed(raw.Payload())) {
		return ErrSealed
	}
	return err
}

// SealFailure seals the message and the stack trace of a failure that was not made by the failure converter.
func (c Converters) SealFailure(failure *failurepb.Failure) error {
	if c.failure == nil {
		return nil
	}
	return converter.EncodeCommonFailureAttributes(c.data, failure)
}

// Clear are converters for a worker without a keyset. They write in the clear, and do not take what is encrypted for input
// that is no good: while encryption is being turned on, another worker has the keyset.
func Clear() Converters { return Converters{data: newDataConverter(&Codec{}, false)} }

// ByCodec are converters that use a codec of somebody else's, such as [converter.NewRemotePayloadCodec].
func ByCodec(codec converter.PayloadCodec) Converters {
	return By(converter.NewCodecDataConverter(converter.GetDefaultDataConverter(), codec)) //nolint:forbidigo // is encoded
}

// By are converters that use a data converter, for failures too.
func By(data converter.DataConverter) Converters {
	return Converters{data: data, failure: encodedFailures(data)}
}

// Converters are those of a client, and of the workers with that client, of a namespace.
func (k *Keyset) Converters(namespace string) Converters {
	codec := k.Codec(namespace)
	return Converters{data: newDataConverter(codec, false), failure: &failureConverter{codec: codec}}
}

// Codec is the keyset as a codec, for what belongs to a namespace; empty stands for all.
func (k *Keyset) Codec(namespace string) *Codec {
	return &Codec{keys: k, at: place{namespace: namespace}}
}

// dataConverter seals what the default converter makes of values.
type dataConverter struct {
	converter.DataConverter

	codec *Codec
	// inWorkflow says that workflow code converts. There an error can fail the workflow, or drop a signal for good: a key
	// that is not here yet is no reason for either.
	inWorkflow bool
}

func newDataConverter(codec *Codec, inWorkflow bool) *dataConverter {
	return &dataConverter{
		DataConverter: converter.NewCodecDataConverter(converter.GetDefaultDataConverter(), codec), //nolint:forbidigo // is sealed
		codec:         codec, inWorkflow: inWorkflow,
	}
}

var (
	_ converter.DataConverterWithSerializationContext = (*dataConverter)(nil)
	_ workflow.ContextAware                           = (*dataConverter)(nil)
)

// WithSerializationContext is part of [converter.DataConverterWithSerializationContext].
func (d *dataConverter) WithSerializationContext(ctx converter.SerializationContext) converter.DataConverter {
	return newDataConverter(d.codec.within(ctx), d.inWorkflow)
}

// WithWorkflowContext is part of [workflow.ContextAware].
func (d *dataConverter) WithWorkflowContext(workflow.Context) converter.DataConverter {
	return newDataConverter(d.codec, true)
}

// WithContext is part of [workflow.ContextAware].
func (d *dataConverter) WithContext(context.Context) converter.DataConverter { return d }

// FromPayload is part of [converter.DataConverter].
func (d *dataConverter) FromPayload(payload *commonpb.Payload, into any) error {
	err := d.DataConverter.FromPayload(payload, into)
	if raw, ok := into.(*converter.RawValue); ok && errors.Is(err, ErrMoved) {
		// Who takes a raw value judges by itself what it was given, and tells callers what is wrong with it.
		*raw = converter.NewRawValue(payload)
		return nil
	}
	return d.checked(err)
}

// FromPayloads is part of [converter.DataConverter].
func (d *dataConverter) FromPayloads(payloads *commonpb.Payloads, into ...any) error {
	if len(into) == 1 && len(payloads.GetPayloads()) == 1 {
		if _, ok := into[0].(*converter.RawValue); ok {
			return d.FromPayload(payloads.GetPayloads()[0], into[0])
		}
	}
	return d.checked(d.DataConverter.FromPayloads(payloads, into...))
}

// checked has the workflow task repeated, by a panic as the SDK asks for it, until a worker has the key.
func (d *dataConverter) checked(err error) error {
	if d.inWorkflow && (errors.Is(err, ErrUnknownKey) || errors.Is(err, ErrSealed)) {
		panic(err)
	}
	return err
}

// failureConverter seals messages, stack traces and details of failures.
type failureConverter struct{ codec *Codec }

var _ converter.FailureConverterWithSerializationContext = (*failureConverter)(nil)

// WithSerializationContext is part of [converter.FailureConverterWithSerializationContext].
func (f *failureConverter) WithSerializationContext(ctx converter.SerializationContext) converter.FailureConverter {
	return &failureConverter{codec: f.codec.within(ctx)}
}

// ErrorToFailure is part of [converter.FailureConverter].
func (f *failureConverter) ErrorToFailure(err error) *failurepb.Failure {
	return encodedFailures(newDataConverter(f.codec, false)).ErrorToFailure(err)
}

// FailureToError is part of [converter.FailureConverter]. A failure is handed on as it is from a child to its parent, and
// from there to whoever asks, so those of other workflows are read.
func (f *failureConverter) FailureToError(failure *failurepb.Failure) error {
	anyones := &Codec{keys: f.codec.keys, at: place{namespace: f.codec.at.namespace}, anywhere: f.codec.anywhere}
	return encodedFailures(newDataConverter(anyones, false)).FailureToError(failure)
}

func encodedFailures(data converter.DataConverter) converter.FailureConverter {
	return temporal.NewDefaultFailureConverter(temporal.DefaultFailureConverterOptions{
		DataConverter: data, EncodeCommonAttributes: true,
	})
}
