import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.common.util.concurrent.ListenableFuture;
import com.google.protobuf.ByteString;
import inference.GRPCInferenceServiceGrpc;
import inference.GRPCInferenceServiceGrpc.GRPCInferenceServiceBlockingV2Stub;
import inference.GrpcService.InferParameter;
import inference.GrpcService.InferTensorContents;
import inference.GrpcService.ModelInferRequest;
import inference.GrpcService.ModelInferRequest.InferInputTensor;
import inference.GrpcService.ModelInferResponse;
import inference.GrpcService.ModelStreamInferResponse;
import inference.GrpcService.ServerLiveRequest;
import io.grpc.CallOptions;
import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.TlsChannelCredentials;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.stub.BlockingClientCall;
import io.grpc.stub.ClientCalls;
import java.io.File;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.parallel.Execution;
import org.junit.jupiter.api.parallel.ExecutionMode;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * Tries our server with grpc-java.
 *
 * <p>tests/clients/languages.py starts the servers, says where they are in TIS_* (see its SERVERS)
 * and makes the certificates in TIS_CERTIFICATES.
 */
class GrpcTest {
    private static final int BIG_BYTES = 64 << 20;

    private final List<ManagedChannel> channels = new ArrayList<>();

    @AfterEach
    void closeChannels() {
        channels.forEach(ManagedChannel::shutdownNow);
    }

    private static String env(String name) {
        String value = System.getenv(name);
        assertNotNull(value, name + " is not set; run tests/clients/languages.py java");
        return value;
    }

    /** A channel to one of the servers; it pings every ten seconds, as often as grpc-java can. */
    private ManagedChannel connect(String server, ChannelCredentials credentials) {
        ManagedChannel channel = Grpc.newChannelBuilder(env(server), credentials)
                .maxInboundMessageSize(2 * BIG_BYTES)
                .keepAliveTime(10, TimeUnit.SECONDS)
                .build();
        channels.add(channel);
        return channel;
    }

    private ManagedChannel connect(String server) {
        return connect(server, InsecureChannelCredentials.create());
    }

    private static GRPCInferenceServiceBlockingV2Stub stub(ManagedChannel channel) {
        return GRPCInferenceServiceGrpc.newBlockingV2Stub(channel)
                .withDeadlineAfter(Duration.ofMinutes(2));
    }

    private static ByteString raw(int... values) {
        ByteBuffer bytes = ByteBuffer.allocate(4 * values.length).order(ByteOrder.LITTLE_ENDIAN);
        bytes.asIntBuffer().put(values);
        return ByteString.copyFrom(bytes);
    }

    private static InferInputTensor tensor(String name, String datatype, long size) {
        return InferInputTensor.newBuilder().setName(name).setDatatype(datatype).addShape(size).build();
    }

    /** Asks an identity model of INT32[-1]. */
    private static ModelInferRequest request(String model, int... values) {
        return ModelInferRequest.newBuilder()
                .setModelName(model)
                .addInputs(tensor("INPUT0", "INT32", values.length))
                .addRawInputContents(raw(values))
                .build();
    }

    private static ModelInferRequest bigRequest(int bytes) {
        byte[] content = new byte[bytes];
        for (int i = 0; i < bytes; i++) {
            content[i] = (byte) (i * 31 >> 3);
        }
        return ModelInferRequest.newBuilder()
                .setModelName("bytes")
                .addInputs(tensor("INPUT0", "UINT8", bytes))
                .addRawInputContents(ByteString.copyFrom(content))
                .build();
    }

    private static void check(ModelInferRequest request, ModelInferResponse answer) {
        assertEquals(request.getId(), answer.getId());
        // Not assertEquals: it would print both.
        assertTrue(request.getRawInputContents(0).equals(answer.getRawOutputContents(0)));
    }

    private static void infer(GRPCInferenceServiceBlockingV2Stub stub, ModelInferRequest request)
            throws StatusException {
        check(request, stub.modelInfer(request));
    }

    private static ModelInferResponse receive(BlockingClientCall<?, ModelStreamInferResponse> stream)
            throws Exception {
        ModelStreamInferResponse answer = stream.read();
        assertNotNull(answer, "the stream has ended");
        assertEquals("", answer.getErrorMessage());
        return answer.getInferResponse();
    }

    private static void exchange(
            BlockingClientCall<ModelInferRequest, ModelStreamInferResponse> stream,
            ModelInferRequest request) throws Exception {
        stream.write(request);
        check(request, receive(stream));
    }

    private interface Call {
        void run() throws Exception;
    }

    private static void failsWith(Status.Code code, String text, Call call) {
        StatusException error = assertThrows(StatusException.class, call::run);
        assertEquals(code, error.getStatus().getCode(), error.getMessage());
        assertTrue(error.getMessage().contains(text), error.getMessage());
    }

    private static void failsSoonWith(Status.Code code, Call call) {
        long started = System.nanoTime();
        failsWith(code, "", call);
        assertTrue(System.nanoTime() - started < Duration.ofSeconds(2).toNanos(), "late");
    }

    // ---- Unary ----

    @Test
    void unary() throws Exception {
        var stub = stub(connect("TIS_PLAIN"));
        assertTrue(stub.serverLive(ServerLiveRequest.getDefaultInstance()).getLive());
        infer(stub, request("identity", 1, -2, 3).toBuilder().setId("größe").build());
    }

    @Test
    void unaryTyped() throws Exception {
        ModelInferRequest.Builder request = request("identity", 1, -2, 3).toBuilder();
        InferTensorContents.Builder contents = InferTensorContents.newBuilder();
        contents.addIntContents(1).addIntContents(-2).addIntContents(3);
        request.clearRawInputContents().getInputsBuilder(0).setContents(contents);
        ModelInferResponse answer = stub(connect("TIS_PLAIN")).modelInfer(request.build());
        assertEquals(raw(1, -2, 3), answer.getRawOutputContents(0));
    }

    @Test
    void manyAtOnce() throws Exception {
        var stub = GRPCInferenceServiceGrpc.newFutureStub(connect("TIS_PLAIN"));
        List<ListenableFuture<ModelInferResponse>> answers = new ArrayList<>();
        for (int i = 0; i < 500; i++) {
            answers.add(stub.modelInfer(request("identity", i)));
        }
        for (int i = 0; i < answers.size(); i++) {
            check(request("identity", i), answers.get(i).get(1, TimeUnit.MINUTES));
        }
    }

    @Test
    void errors() {
        ManagedChannel channel = connect("TIS_PLAIN");
        var stub = stub(channel);
        failsWith(Status.Code.NOT_FOUND, "größe", () -> infer(stub, request("größe", 1)));
        ModelInferRequest.Builder wrongType = request("identity", 1).toBuilder();
        wrongType.getInputsBuilder(0).setDatatype("FP32");
        failsWith(Status.Code.INVALID_ARGUMENT, "FP32", () -> infer(stub, wrongType.build()));
        var unknown = GRPCInferenceServiceGrpc.getModelInferMethod().toBuilder()
                .setFullMethodName("inference.GRPCInferenceService/Nothing")
                .build();
        failsWith(Status.Code.UNIMPLEMENTED, "", () -> ClientCalls.blockingV2UnaryCall(
                channel, unknown, CallOptions.DEFAULT, request("identity", 1)));
    }

    @Test
    void httpPort() throws Exception {
        infer(stub(connect("TIS_HTTP")), request("identity", 1));
    }

    @Test
    void health() {
        var answer = HealthGrpc.newBlockingStub(connect("TIS_PLAIN"))
                .check(HealthCheckRequest.getDefaultInstance());
        assertEquals(ServingStatus.SERVING, answer.getStatus());
    }

    // ---- Streams ----

    @Test
    void stream() throws Exception {
        var stream = stub(connect("TIS_PLAIN")).modelStreamInfer();
        Map<String, ModelInferRequest> requests = new HashMap<>();
        for (int i = 0; i < 200; i++) {
            requests.put("" + i, request("identity", i).toBuilder().setId("" + i).build());
        }
        for (ModelInferRequest request : requests.values()) {
            stream.write(request);
        }
        stream.halfClose();
        while (!requests.isEmpty()) {
            ModelInferResponse answer = receive(stream);
            check(requests.remove(answer.getId()), answer);
        }
        assertNull(stream.read());
    }

    /** An error is a message; the stream goes on. */
    @Test
    void streamError() throws Exception {
        var stream = stub(connect("TIS_PLAIN")).modelStreamInfer();
        stream.write(request("nothing", 1));
        assertTrue(stream.read().getErrorMessage().contains("nothing"));
        exchange(stream, request("identity", 1));
    }

    @Test
    void streamDecoupled() throws Exception {
        var stream = stub(connect("TIS_PLAIN")).modelStreamInfer();
        stream.write(ModelInferRequest.newBuilder()
                .setModelName("repeat")
                .putParameters("triton_enable_empty_final_response",
                        InferParameter.newBuilder().setBoolParam(true).build())
                .addInputs(tensor("IN", "INT32", 3))
                .addInputs(tensor("DELAY", "UINT32", 3))
                .addInputs(tensor("WAIT", "UINT32", 1))
                .addRawInputContents(raw(7, 8, 9))
                .addRawInputContents(raw(0, 0, 0))
                .addRawInputContents(raw(0))
                .build());
        for (int value = 7; value <= 10; value++) {
            ModelInferResponse answer = receive(stream);
            boolean isFinal = answer.containsParameters("triton_final_response")
                    && answer.getParametersOrThrow("triton_final_response").getBoolParam();
            assertEquals(value == 10, isFinal);
            if (!isFinal) {
                assertEquals(raw(value), answer.getRawOutputContents(0));
            }
        }
    }

    // ---- Cancel and deadline ----

    @Test
    void cancel() throws Exception {
        var stub = GRPCInferenceServiceGrpc.newFutureStub(connect("TIS_PLAIN"));
        var answer = stub.modelInfer(request("slow", 1));
        assertThrows(TimeoutException.class, () -> answer.get(100, TimeUnit.MILLISECONDS));
        answer.cancel(true);
        check(request("identity", 1), stub.modelInfer(request("identity", 1)).get(1, TimeUnit.MINUTES));
    }

    @Test
    void cancelStream() throws Exception {
        var stub = stub(connect("TIS_PLAIN"));
        var stream = stub.modelStreamInfer();
        exchange(stream, request("identity", 1));
        stream.write(request("slow", 1));
        stream.cancel("enough", null);
        failsSoonWith(Status.Code.CANCELLED, stream::read);
        infer(stub, request("identity", 1));
    }

    @Test
    void deadline() {
        var stub = stub(connect("TIS_PLAIN")).withDeadlineAfter(Duration.ofMillis(200));
        failsSoonWith(Status.Code.DEADLINE_EXCEEDED, () -> infer(stub, request("slow", 1)));
    }

    // ---- Compression and size ----

    @Test
    void gzip() throws Exception {
        var stub = stub(connect("TIS_COMPRESSED")).withCompression("gzip");
        ModelInferRequest request = request("identity", new int[100_000]);
        infer(stub, request);
        var stream = stub.modelStreamInfer();
        exchange(stream, request);
        exchange(stream, request);
    }

    @Test
    void big() throws Exception {
        var stub = stub(connect("TIS_PLAIN"));
        ModelInferRequest request = bigRequest(BIG_BYTES);
        infer(stub, request);
        exchange(stub.modelStreamInfer(), request);
    }

    // ---- Connections ----

    /** The server allows such pings and sends some itself. */
    @Test
    @Execution(ExecutionMode.CONCURRENT)
    void pings() throws Exception {
        var stream = stub(connect("TIS_LENIENT")).modelStreamInfer();
        for (int i = 0; i < 3; i++) {
            exchange(stream, request("identity", i));
            Thread.sleep(12_000); // the time in which pings must do no harm
        }
        stream.halfClose();
        assertNull(stream.read());
    }

    /** The server allows a ping every 5 minutes: the second that comes too early ends the connection. */
    @Test
    @Execution(ExecutionMode.CONCURRENT)
    void tooManyPings() {
        var stream = stub(connect("TIS_STRICT")).modelStreamInfer();
        failsWith(Status.Code.RESOURCE_EXHAUSTED, "too_many_pings", stream::read);
    }

    /** Connections end after half a second; no call fails by that. */
    @Test
    @Execution(ExecutionMode.CONCURRENT)
    void age() throws Exception {
        ManagedChannel channel = connect("TIS_AGE");
        var changes = new AtomicInteger();
        Runnable count = new Runnable() {
            @Override
            public void run() {
                changes.incrementAndGet();
                channel.notifyWhenStateChanged(channel.getState(true), this);
            }
        };
        count.run();
        while (changes.get() < 8) {
            infer(stub(channel), request("identity", 1));
        }
    }

    @DisplayName("TLS")
    @ParameterizedTest(name = "{0}", quoteTextArguments = false)
    @CsvSource({
        "trusted, TIS_TLS, root, , true",
        "unknown authority, TIS_TLS, other_root, , false",
        "mutual, TIS_MUTUAL, root, client, true",
        "'mutual, none', TIS_MUTUAL, root, , false",
        "'mutual, unknown', TIS_MUTUAL, root, stranger, false",
    })
    void tls(String name, String server, String authority, String own, boolean works)
            throws Exception {
        String folder = env("TIS_CERTIFICATES") + "/";
        TlsChannelCredentials.Builder credentials = TlsChannelCredentials.newBuilder()
                .trustManager(new File(folder + authority + ".crt"));
        if (own != null) {
            credentials.keyManager(new File(folder + own + ".crt"), new File(folder + own + ".key"));
        }
        var stub = stub(connect(server, credentials.build()));
        if (works) {
            infer(stub, request("identity", 1));
            infer(stub, bigRequest(BIG_BYTES / 4));
        } else {
            failsWith(Status.Code.UNAVAILABLE, "", () -> infer(stub, request("identity", 1)));
        }
    }
}
