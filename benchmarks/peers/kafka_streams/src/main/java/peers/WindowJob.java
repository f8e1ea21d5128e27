package peers;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.EmitStrategy;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.processor.TimestampExtractor;
import org.apache.kafka.streams.state.BuiltInDslStoreSuppliers;
import org.apache.kafka.streams.state.WindowStore;

/** Windows of a minute per device, emitted when they close. See README.md for why so. */
public final class WindowJob {
    private static final Duration MINUTE = Duration.ofMinutes(1);

    private WindowJob() {}

    public static void main(String[] arguments) throws Exception {
        JsonNode job = new ObjectMapper().readTree(arguments[0]);
        Meter meter = new Meter(job.get("warm_up").asLong());
        KafkaStreams streams = new KafkaStreams(topology(job, meter).build(), properties(job));
        CountDownLatch stopped = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            streams.close();
            stopped.countDown();
        }));
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            return org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse
                    .SHUTDOWN_CLIENT;
        });
        streams.start();
        stopped.await();
    }

    private static StreamsBuilder topology(JsonNode job, Meter meter) {
        StreamsBuilder builder = new StreamsBuilder();
        Serde<Reading> readings = Reading.serde();
        Serde<Aggregates> aggregates = Aggregates.stored();
        TimestampExtractor eventTime = (ConsumerRecord<Object, Object> record, long partitionTime) -> {
            meter.seen();
            return ((Reading) record.value()).timestamp;
        };
        Materialized<String, Aggregates, WindowStore<Bytes, byte[]>> store =
                Materialized.<String, Aggregates, WindowStore<Bytes, byte[]>>as("windows")
                        .withKeySerde(Serdes.String())
                        .withValueSerde(aggregates)
                        .withStoreType(new BuiltInDslStoreSuppliers.InMemoryDslStoreSuppliers())
                        .withCachingEnabled();
        builder.stream(job.get("input").asText(), Consumed.with(Serdes.String(), readings)
                        .withTimestampExtractor(eventTime))
                .groupByKey(Grouped.with(Serdes.String(), readings))
                .windowedBy(TimeWindows.ofSizeWithNoGrace(MINUTE))
                .emitStrategy(EmitStrategy.onWindowClose())
                .aggregate(Aggregates::new, (device, reading, window) -> window.add(reading), store)
                .toStream()
                .map((window, value) -> KeyValue.pair(window.key(), value.starting(window.window().start())))
                .to(job.get("output").asText(), Produced.with(Serdes.String(), Aggregates.sent()));
        return builder;
    }

    private static Properties properties(JsonNode job) {
        Properties properties = new Properties();
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, job.get("group").asText());
        properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, job.get("bootstrap").asText());
        properties.put(StreamsConfig.STATE_DIR_CONFIG, job.get("folder").asText());
        properties.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        properties.put(StreamsConfig.TOPOLOGY_OPTIMIZATION_CONFIG, StreamsConfig.OPTIMIZE);
        if (job.get("guarantee").asText().equals("exactly-once")) {
            properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        }
        if (!job.get("commit_seconds").isNull()) {
            long interval = Math.round(job.get("commit_seconds").asDouble() * 1000);
            properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, interval);
        }
        // Closed windows are sent at most once a second, when a message comes: the last ones would wait for one that
        // does not come.
        properties.put(StreamsConfig.InternalConfig.EMIT_INTERVAL_MS_KSTREAMS_WINDOWED_AGGREGATION, 0L);
        return properties;
    }

    /** Says once how much processor time was used when the messages that warm up were seen. */
    private static final class Meter {
        private final long warmUp;
        private final AtomicLong seen = new AtomicLong();

        Meter(long warmUp) {
            this.warmUp = warmUp;
        }

        void seen() {
            if (seen.incrementAndGet() == warmUp) {
                var system = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
                // nanoTime is the kernel's monotonic clock on Linux, which the harness reads, too.
                System.out.printf(
                        java.util.Locale.ROOT,
                        "{\"cpu\": %f, \"at\": %f, \"beyond\": 0}%n",
                        system.getProcessCpuTime() / 1e9,
                        System.nanoTime() / 1e9);
                System.out.flush();
            }
        }
    }
}
