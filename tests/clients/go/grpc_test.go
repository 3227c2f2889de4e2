// Package clients tries our server with grpc-go, and with grpcurl by way of reflection.
//
// tests/clients/languages.py starts the servers, says where they are in TIS_* (see its SERVERS),
// makes the certificates in TIS_CERTIFICATES and generates the package inference.
package clients

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	_ "google.golang.org/grpc/health" // for clients that watch it
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	pb "trtserver.test/clients/inference"
)

const bigBytes = 64 << 20

func env(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set; run tests/clients/languages.py go", name)
	}
	return value
}

// dial gives a connection to one of the servers; plaintext unless the options say otherwise.
func dial(t *testing.T, server string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	defaults := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(2 * bigBytes)),
	}
	conn, err := grpc.NewClient(env(t, server), append(defaults, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func client(t *testing.T, server string, options ...grpc.DialOption) pb.GRPCInferenceServiceClient {
	t.Helper()
	return pb.NewGRPCInferenceServiceClient(dial(t, server, options...))
}

func deadline(t *testing.T, after time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), after)
	t.Cleanup(cancel)
	return ctx
}

func raw(values ...int32) []byte {
	out, _ := binary.Append(nil, binary.LittleEndian, values)
	return out
}

// request asks an identity model of INT32[-1].
func request(model string, values ...int32) *pb.ModelInferRequest {
	return &pb.ModelInferRequest{
		ModelName: model,
		Inputs: []*pb.ModelInferRequest_InferInputTensor{
			{Name: "INPUT0", Datatype: "INT32", Shape: []int64{int64(len(values))}},
		},
		RawInputContents: [][]byte{raw(values...)},
	}
}

func bigRequest(content []byte) *pb.ModelInferRequest {
	r := request("bytes")
	r.Inputs[0].Datatype = "UINT8"
	r.Inputs[0].Shape[0] = int64(len(content))
	r.RawInputContents[0] = content
	return r
}

// infer makes one call and checks that the answer is the input.
func infer(ctx context.Context, c pb.GRPCInferenceServiceClient, r *pb.ModelInferRequest,
	options ...grpc.CallOption) error {
	answer, err := c.ModelInfer(ctx, r, options...)
	if err != nil {
		return err
	}
	return compare(answer, r)
}

func compare(answer *pb.ModelInferResponse, r *pb.ModelInferRequest) error {
	if answer.Id != r.Id || len(answer.RawOutputContents) != 1 ||
		!bytes.Equal(answer.RawOutputContents[0], r.RawInputContents[0]) {
		return fmt.Errorf("id %q: another answer than the input", answer.Id)
	}
	return nil
}

func wantCode(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(err.Error(), text) {
		t.Fatalf("got %v, want %v with '%s'", err, code, text)
	}
}

func succeed(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ---- Unary ----

func TestUnary(t *testing.T) {
	c := client(t, "TIS_PLAIN")
	live, err := c.ServerLive(deadline(t, time.Minute), &pb.ServerLiveRequest{})
	succeed(t, err)
	if !live.Live {
		t.Error("not live")
	}
	r := request("identity", 1, -2, 3)
	r.Id = "größe"
	succeed(t, infer(deadline(t, time.Minute), c, r))
}

func TestUnaryTyped(t *testing.T) {
	r := request("identity", 1, -2, 3)
	r.RawInputContents = nil
	r.Inputs[0].Contents = &pb.InferTensorContents{IntContents: []int32{1, -2, 3}}
	answer, err := client(t, "TIS_PLAIN").ModelInfer(deadline(t, time.Minute), r)
	succeed(t, err)
	if !bytes.Equal(answer.RawOutputContents[0], raw(1, -2, 3)) {
		t.Errorf("got %v", answer)
	}
}

func TestManyAtOnce(t *testing.T) {
	c := client(t, "TIS_PLAIN")
	ctx := deadline(t, time.Minute)
	errs := make([]error, 500)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() { errs[i] = infer(ctx, c, request("identity", int32(i))) })
	}
	all.Wait()
	for _, err := range errs {
		succeed(t, err)
	}
}

func TestErrors(t *testing.T) {
	conn := dial(t, "TIS_PLAIN")
	wrongType := request("identity", 1)
	wrongType.Inputs[0].Datatype = "FP32"
	for _, c := range []struct {
		method  string
		request any
		code    codes.Code
		text    string
	}{
		{"ModelInfer", request("größe"), codes.NotFound, "größe"},
		{"ModelInfer", wrongType, codes.InvalidArgument, "FP32"},
		{"Nothing", request("identity"), codes.Unimplemented, ""},
	} {
		err := conn.Invoke(deadline(t, time.Minute), "/inference.GRPCInferenceService/"+c.method,
			c.request, &pb.ModelInferResponse{})
		wantCode(t, err, c.code, c.text)
	}
}

func TestHTTPPort(t *testing.T) {
	succeed(t, infer(deadline(t, time.Minute), client(t, "TIS_HTTP"), request("identity", 1)))
}

func TestHealth(t *testing.T) {
	c := grpc_health_v1.NewHealthClient(dial(t, "TIS_PLAIN"))
	answer, err := c.Check(deadline(t, time.Minute), &grpc_health_v1.HealthCheckRequest{})
	succeed(t, err)
	if answer.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("got %v", answer)
	}
	// A client that is to watch the health of its servers works too.
	watching := client(t, "TIS_PLAIN", grpc.WithDefaultServiceConfig(
		`{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}`))
	succeed(t, infer(deadline(t, time.Minute), watching, request("identity", 1)))
}

// ---- Streams ----

type inferStream = grpc.BidiStreamingClient[pb.ModelInferRequest, pb.ModelStreamInferResponse]

func stream(t *testing.T, ctx context.Context, c pb.GRPCInferenceServiceClient,
	options ...grpc.CallOption) inferStream {
	t.Helper()
	s, err := c.ModelStreamInfer(ctx, options...)
	succeed(t, err)
	return s
}

// receive takes the next response, which must not be an error.
func receive(t *testing.T, s inferStream) *pb.ModelInferResponse {
	t.Helper()
	answer, err := s.Recv()
	succeed(t, err)
	if answer.ErrorMessage != "" {
		t.Fatal(answer.ErrorMessage)
	}
	return answer.InferResponse
}

// exchange sends a request and takes the response to it.
func exchange(t *testing.T, s inferStream, r *pb.ModelInferRequest) {
	t.Helper()
	succeed(t, s.Send(r))
	succeed(t, compare(receive(t, s), r))
}

func TestStream(t *testing.T) {
	const count = 200
	s := stream(t, deadline(t, time.Minute), client(t, "TIS_PLAIN"))
	requests := map[string]*pb.ModelInferRequest{}
	for i := range count {
		r := request("identity", int32(i))
		r.Id = fmt.Sprint(i)
		requests[r.Id] = r
	}
	go func() {
		for _, r := range requests {
			s.Send(r)
		}
		s.CloseSend()
	}()
	for range count {
		answer := receive(t, s)
		succeed(t, compare(answer, requests[answer.Id]))
		delete(requests, answer.Id)
	}
	if _, err := s.Recv(); err != io.EOF {
		t.Errorf("got %v at the end", err)
	}
}

// An error is a message; the stream goes on.
func TestStreamError(t *testing.T) {
	s := stream(t, deadline(t, time.Minute), client(t, "TIS_PLAIN"))
	for _, c := range []struct{ model, text string }{
		{"identity", ""}, {"nothing", "nothing"}, {"identity", ""},
	} {
		succeed(t, s.Send(request(c.model, 1)))
		answer, err := s.Recv()
		succeed(t, err)
		if (answer.ErrorMessage == "") != (c.text == "") || !strings.Contains(answer.ErrorMessage, c.text) {
			t.Errorf("%s: got '%s'", c.model, answer.ErrorMessage)
		}
	}
}

func TestStreamDecoupled(t *testing.T) {
	s := stream(t, deadline(t, time.Minute), client(t, "TIS_PLAIN"))
	tensor := func(name, datatype string, size int64) *pb.ModelInferRequest_InferInputTensor {
		return &pb.ModelInferRequest_InferInputTensor{Name: name, Datatype: datatype, Shape: []int64{size}}
	}
	values := []int32{7, 8, 9}
	succeed(t, s.Send(&pb.ModelInferRequest{
		ModelName: "repeat",
		Id:        "r",
		Parameters: map[string]*pb.InferParameter{"triton_enable_empty_final_response": {
			ParameterChoice: &pb.InferParameter_BoolParam{BoolParam: true}}},
		Inputs: []*pb.ModelInferRequest_InferInputTensor{
			tensor("IN", "INT32", 3), tensor("DELAY", "UINT32", 3), tensor("WAIT", "UINT32", 1)},
		RawInputContents: [][]byte{raw(values...), raw(0, 0, 0), raw(0)},
	}))
	for i := range len(values) + 1 {
		r := receive(t, s)
		isFinal := r.Parameters["triton_final_response"].GetBoolParam()
		if r.Id != "r" || isFinal != (i == len(values)) {
			t.Fatalf("response %d: got %v", i, r)
		}
		if !isFinal && !bytes.Equal(r.RawOutputContents[0], raw(values[i])) {
			t.Errorf("response %d: got %v", i, r)
		}
	}
}

// ---- Cancel and deadline ----

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(100*time.Millisecond, cancel)
	started := time.Now()
	c := client(t, "TIS_PLAIN")
	wantCode(t, infer(ctx, c, request("slow", 1)), codes.Canceled, "")
	if time.Since(started) > 2*time.Second {
		t.Error("late")
	}
	succeed(t, infer(deadline(t, time.Minute), c, request("identity", 1)))
}

func TestCancelStream(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	c := client(t, "TIS_PLAIN")
	s := stream(t, ctx, c)
	exchange(t, s, request("identity", 1))
	succeed(t, s.Send(request("slow", 1)))
	cancel()
	_, err := s.Recv()
	wantCode(t, err, codes.Canceled, "")
	succeed(t, infer(deadline(t, time.Minute), c, request("identity", 1)))
}

func TestDeadline(t *testing.T) {
	started := time.Now()
	err := infer(deadline(t, 200*time.Millisecond), client(t, "TIS_PLAIN"), request("slow", 1))
	wantCode(t, err, codes.DeadlineExceeded, "")
	if time.Since(started) > 2*time.Second {
		t.Error("late")
	}
}

// ---- Compression and size ----

// observer counts what a stats.Handler sees.
type observer struct {
	connections, compressed atomic.Int64
}

func (o *observer) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (o *observer) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (o *observer) HandleRPC(_ context.Context, event stats.RPCStats) {
	if in, ok := event.(*stats.InPayload); ok && in.CompressedLength < in.Length {
		o.compressed.Add(1)
	}
}

func (o *observer) HandleConn(_ context.Context, event stats.ConnStats) {
	if _, ok := event.(*stats.ConnBegin); ok {
		o.connections.Add(1)
	}
}

func TestGzip(t *testing.T) {
	var seen observer
	c := client(t, "TIS_COMPRESSED", grpc.WithStatsHandler(&seen))
	r := request("identity", make([]int32, 100_000)...)
	for _, options := range [][]grpc.CallOption{nil, {grpc.UseCompressor(gzip.Name)}} {
		succeed(t, infer(deadline(t, time.Minute), c, r, options...))
	}
	if seen.compressed.Load() != 2 {
		t.Errorf("%d of 2 answers were compressed", seen.compressed.Load())
	}
	s := stream(t, deadline(t, time.Minute), c, grpc.UseCompressor(gzip.Name))
	for range 3 {
		exchange(t, s, r)
	}
}

func TestBig(t *testing.T) {
	c := client(t, "TIS_PLAIN")
	r := bigRequest(bytes.Repeat([]byte("0123456789abcdef"), bigBytes/16))
	succeed(t, infer(deadline(t, 2*time.Minute), c, r))
	exchange(t, stream(t, deadline(t, 2*time.Minute), c), r)
}

// ---- Connections ----

// grpc-go pings every 10 seconds at most, so that these two take their time.
var pings = grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second})

// The server allows such pings and sends some itself.
func TestPings(t *testing.T) {
	t.Parallel()
	s := stream(t, deadline(t, time.Minute), client(t, "TIS_LENIENT", pings))
	for range 3 {
		exchange(t, s, request("identity", 1))
		time.Sleep(12 * time.Second) // the time in which pings must do no harm
	}
	succeed(t, s.CloseSend())
	if _, err := s.Recv(); err != io.EOF {
		t.Errorf("got %v at the end", err)
	}
}

// The server allows a ping every 5 minutes: the second that comes too early ends the connection.
func TestTooManyPings(t *testing.T) {
	t.Parallel()
	s := stream(t, deadline(t, time.Minute), client(t, "TIS_STRICT", pings))
	_, err := s.Recv()
	wantCode(t, err, codes.Unavailable, "too_many_pings")
}

// Connections end after half a second; no call fails by that. Calls that are in time for the notice
// but not for the last stream are tried again, which grpc-go does only if it has kept the message.
func TestAge(t *testing.T) {
	for _, size := range []int{4, bigBytes / 8} {
		t.Run(fmt.Sprintf("%d bytes", size), func(t *testing.T) {
			t.Parallel()
			var seen observer
			c := client(t, "TIS_AGE", grpc.WithStatsHandler(&seen),
				grpc.WithDefaultCallOptions(grpc.MaxRetryRPCBufferSize(2*bigBytes)))
			ctx := deadline(t, time.Minute)
			r := bigRequest(make([]byte, size))
			for seen.connections.Load() < 6 {
				succeed(t, infer(ctx, c, r))
			}
		})
	}
}

func TestTLS(t *testing.T) {
	folder := env(t, "TIS_CERTIFICATES")
	roots := func(name string) *x509.CertPool {
		text, err := os.ReadFile(filepath.Join(folder, name+".crt"))
		succeed(t, err)
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(text)
		return pool
	}
	pair := func(name string) tls.Certificate {
		certificate, err := tls.LoadX509KeyPair(filepath.Join(folder, name+".crt"), filepath.Join(folder, name+".key"))
		succeed(t, err)
		return certificate
	}
	for _, c := range []struct {
		name, server string
		config       tls.Config
		works        bool
	}{
		{"trusted", "TIS_TLS", tls.Config{RootCAs: roots("root")}, true},
		{"1.2", "TIS_TLS", tls.Config{RootCAs: roots("root"), MaxVersion: tls.VersionTLS12}, true},
		{"unknown authority", "TIS_TLS", tls.Config{RootCAs: roots("other_root")}, false},
		{"mutual", "TIS_MUTUAL", tls.Config{RootCAs: roots("root"),
			Certificates: []tls.Certificate{pair("client")}}, true},
		{"mutual, none", "TIS_MUTUAL", tls.Config{RootCAs: roots("root")}, false},
		{"mutual, unknown", "TIS_MUTUAL", tls.Config{RootCAs: roots("root"),
			Certificates: []tls.Certificate{pair("stranger")}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			connection := client(t, c.server, grpc.WithTransportCredentials(credentials.NewTLS(&c.config)))
			err := infer(deadline(t, time.Minute), connection, request("identity", 1))
			if c.works {
				succeed(t, err)
				content := bytes.Repeat([]byte("0123456789abcdef"), bigBytes/64)
				succeed(t, infer(deadline(t, time.Minute), connection, bigRequest(content)))
			} else {
				wantCode(t, err, codes.Unavailable, "")
			}
		})
	}
	t.Run("plain", func(t *testing.T) {
		err := infer(deadline(t, time.Minute), client(t, "TIS_TLS"), request("identity", 1))
		wantCode(t, err, codes.Unavailable, "")
	})
}

// ---- grpcurl ----

const (
	inference = "inference.GRPCInferenceService"
	oldServer = "nvidia.inferenceserver.GRPCService"
	health    = "grpc.health.v1.Health"
)

// What each method is sent, and what its answer holds. Reflection has to show no other.
var methods = map[string][2]string{
	health + ".Check": {`{}`, `"status": "SERVING"`},
	health + ".Watch": {`{}`, `"status": "SERVING"`}, // and goes on, until -max-time

	inference + ".ServerLive":     {`{}`, `"live": true`},
	inference + ".ServerReady":    {`{}`, `"ready": true`},
	inference + ".ModelReady":     {`{"name": "identity"}`, `"ready": true`},
	inference + ".ServerMetadata": {`{}`, `"extensions"`},
	inference + ".ModelMetadata":  {`{"name": "identity"}`, `"INPUT0"`},
	inference + ".ModelInfer": {`{"model_name": "identity", "inputs": [{"name": "INPUT0",
		"datatype": "INT32", "shape": [1], "contents": {"int_contents": [1]}}]}`, `"AQAAAA=="`},
	inference + ".ModelStreamInfer": {`{"model_name": "identity", "inputs": [{"name": "INPUT0",
		"datatype": "INT32", "shape": [1], "contents": {"int_contents": [1]}}]}`, `"AQAAAA=="`},
	inference + ".ModelConfig":     {`{"name": "identity"}`, `"TYPE_INT32"`},
	inference + ".ModelStatistics": {`{"name": "identity"}`, `"inferenceStats"`},
	inference + ".RepositoryIndex": {`{}`, `"READY"`},

	inference + ".RepositoryModelLoad":          {`{"model_name": "identity"}`, `Code: Unavailable`},
	inference + ".RepositoryModelUnload":        {`{"model_name": "identity"}`, `Code: Unavailable`},
	inference + ".SystemSharedMemoryStatus":     {`{}`, `Code: Unimplemented`},
	inference + ".SystemSharedMemoryRegister":   {`{"name": "r"}`, `Code: Unimplemented`},
	inference + ".SystemSharedMemoryUnregister": {`{"name": "r"}`, `Code: Unimplemented`},
	inference + ".CudaSharedMemoryStatus":       {`{}`, `Code: Unimplemented`},
	inference + ".CudaSharedMemoryRegister":     {`{"name": "r"}`, `Code: Unimplemented`},
	inference + ".CudaSharedMemoryUnregister":   {`{"name": "r"}`, `Code: Unimplemented`},
	inference + ".TraceSetting":                 {`{}`, `Code: Unimplemented`},
	inference + ".LogSettings":                  {`{}`, `"log_info"`},

	oldServer + ".Status":  {`{"model_name": "identity"}`, `"SUCCESS"`},
	oldServer + ".Profile": {`{"cmd": "start"}`, `"UNSUPPORTED"`},
	oldServer + ".Health":  {`{"mode": "ready"}`, `"health": true`},
	oldServer + ".Infer": {`{"model_name": "identity", "model_version": -1, "meta_data": {"batch_size": 1,
		"input": [{"name": "INPUT0", "dims": [1]}], "output": [{"name": "OUTPUT0"}]},
		"raw_input": ["AQAAAA=="]}`, `"AQAAAA=="`},
	oldServer + ".StreamInfer": {`{"model_name": "identity", "model_version": -1, "meta_data": {"batch_size": 1,
		"input": [{"name": "INPUT0", "dims": [1]}], "output": [{"name": "OUTPUT0"}]},
		"raw_input": ["AQAAAA=="]}`, `"AQAAAA=="`},
	oldServer + ".ModelControl":        {`{"model_name": "identity"}`, `"UNAVAILABLE"`},
	oldServer + ".SharedMemoryControl": {`{"status": {}}`, `"UNSUPPORTED"`},
	oldServer + ".Repository":          {`{"index": true}`, `"identity"`},
}

// grpcurl gives what it printed, whatever its exit status: that is an error of gRPC.
func grpcurl(t *testing.T, arguments ...string) string {
	t.Helper()
	command := exec.CommandContext(deadline(t, time.Minute), "grpcurl", append([]string{"-plaintext"}, arguments...)...)
	out, err := command.CombinedOutput()
	if _, isExit := err.(*exec.ExitError); err != nil && !isExit {
		t.Fatal(err)
	}
	return string(out)
}

func TestGrpcurl(t *testing.T) {
	server := env(t, "TIS_PLAIN")
	services := strings.Fields(grpcurl(t, server, "list"))
	want := []string{health, "grpc.reflection.v1.ServerReflection",
		"grpc.reflection.v1alpha.ServerReflection", inference, oldServer}
	slices.Sort(services)
	if !slices.Equal(services, want) {
		t.Errorf("got %q, want %q", services, want)
	}
	for _, service := range services {
		t.Run("describe "+service, func(t *testing.T) {
			out := grpcurl(t, server, "describe", service)
			if !strings.Contains(out, service+" is a service") {
				t.Error(out)
			}
		})
		if strings.HasPrefix(service, "grpc.reflection") {
			continue // what grpcurl itself speaks
		}
		for _, method := range strings.Fields(grpcurl(t, server, "list", service)) {
			t.Run("call "+method, func(t *testing.T) {
				call, known := methods[method]
				if !known {
					t.Fatal("not in the table of methods")
				}
				out := grpcurl(t, "-max-time", "5", "-d", call[0], server, method)
				if !strings.Contains(out, call[1]) {
					t.Errorf("got %s\nwant %s", out, call[1])
				}
			})
		}
	}
}
