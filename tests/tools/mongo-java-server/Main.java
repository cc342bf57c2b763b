import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import de.bwaldvogel.mongo.bson.Document;
import de.bwaldvogel.mongo.wire.message.MongoMessage;

/** Serves MongoDB's protocol on 127.0.0.1, at a port and with its data in a file: {@code PORT FILE}. */
public final class Main {
    public static void main(String[] arguments) {
        MongoServer server = new MongoServer(new Durable(arguments[1]));
        server.bind("127.0.0.1", Integer.parseInt(arguments[0]));
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdown));
    }

    /** Writes down what it has done before it says so; by itself H2 does that once a second. */
    private static final class Durable extends H2Backend {
        Durable(String file) {
            super(file);
        }

        @Override
        public Document handleMessage(MongoMessage message) {
            Document answer = super.handleMessage(message);
            commit();
            return answer;
        }
    }
}
